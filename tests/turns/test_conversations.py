"""Live windows under several threads."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from models import screenshot
from PIL import Image

from kamera_agent import ImageContent, Kamera, Reply, SettingError, TextContent, WindowTooLongError
from kamera_agent.turns import outline
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.conversations import MAX_WINDOWS, Caller, Conversations
from kamera_agent.turns.message import Message
from kamera_agent.turns.outline import Outline, Outliner
from kamera_agent.turns.transcript import Transcript
from kamera_agent.window import items
from kamera_agent.window.content import Content
from kamera_agent.window.layout import Item

TIMEOUT = 20
SIZE = (28, 28)


def test_a_conversation_ends_while_another_one_changes_its_window(
    kamera: Kamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends adds up the bytes of all windows; the change comes where it does that item by item."""
    conversations = Conversations(kamera, max_conversations=8, max_bytes=1 << 30)
    counting, changed = threading.Event(), threading.Event()
    num_bytes = Item.num_bytes.fget  # type: ignore[attr-defined]

    def counted(item: Item) -> int:
        if threading.current_thread() is not threading.main_thread():
            counting.set()
            assert changed.wait(TIMEOUT)
        return num_bytes(item)

    def end() -> None:
        with conversations.hold(Caller("ends"), Outline()):
            pass
        counting.set()

    monkeypatch.setattr(Item, "num_bytes", property(counted))
    with ThreadPoolExecutor() as pool, conversations.hold(Caller("changes"), Outline()) as live:
        window = live.window
        ids = window.sync([ImageContent(screenshot(seed, *SIZE)) for seed in range(3)])
        window.sync(ids[2:])
        ended = pool.submit(end)
        assert counting.wait(TIMEOUT)
        window.sync([])
        changed.set()
        ended.result(TIMEOUT)


def test_dropped_bytes_are_those_of_what_can_be_recalled(kamera: Kamera) -> None:
    window = kamera.window()
    one, two, three = window.sync([ImageContent(screenshot(seed, *SIZE)) for seed in range(3)])
    assert window.dropped_bytes == 0
    window.drop(one)
    each = window.dropped_bytes
    assert each >= screenshot(0, *SIZE).nbytes
    window.drop(two)
    assert window.dropped_bytes == 2 * each
    window.recall(one)
    assert window.dropped_bytes == each
    window.sync([two, one])
    assert window.dropped_bytes == each
    window.sync([three, two, one])
    assert window.dropped_bytes == 0
    window.slide(1)
    assert window.dropped_bytes == 2 * each


SYSTEM = "You are asked about screens. " * 8


class Turns:
    """Speaks in one conversation: a list of texts, the user's and the replies in turn, is a history."""

    def __init__(self, kamera: Kamera, **bounds: int) -> None:
        self.conversations = Conversations(kamera, **{"max_conversations": 8, "max_bytes": 1 << 30, **bounds})
        self.outliner = Outliner(lambda pixels: kamera.family.image_chunk(pixels, ""))

    def ask(self, history: list[str], agent: str = "", conversation: str = "one", system: str = SYSTEM) -> Reply:
        """The reply to the last text."""
        contents: list[Content] = [
            TextContent(text, "assistant" if number % 2 else "user", new_turn=True)
            for number, text in enumerate(history)
        ]
        return self.call(contents, agent, conversation, system)

    def see(self, screens: list[int], question: str) -> Reply:
        """The reply to a question about screens, without a history."""
        images: list[Content] = [ImageContent(_png(seed)) for seed in screens]
        return self.call([*images, TextContent(question)])

    def call(self, contents: list[Content], agent: str = "", conversation: str = "one", system: str = SYSTEM) -> Reply:
        transcript = Transcript(system, contents)
        outline, contents = self.outliner.outline(transcript)
        with self.conversations.hold(Caller(conversation, agent), outline) as live:
            live.begin(contents, system, outline)
            reply = live.window.generate(max_tokens=3)
            live.end(reply)
            live.window.check_integrity()
            return reply


def _png(seed: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(screenshot(seed, *SIZE)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_call_goes_to_the_window_that_holds_most_of_it(kamera: Kamera) -> None:
    """An old screen comes back to the front: a window that was left long ago begins like the call, and is not taken."""
    turns = Turns(kamera)
    turns.see([0, 1], "What?")
    turns.see([5, 6, 7], "Where?")
    reply = turns.see([0, 5, 6, 7, 1], "Who?")
    assert [row.origin for row in reply.plan.rows if row.kind == "image"][1:4] == ["moved"] * 3


def test_a_look_back_is_left_in_the_same_window(kamera: Kamera) -> None:
    """Two of four screens go, and the question is another one: half of the window remains."""
    turns = Turns(kamera)
    turns.see([0, 5, 6, 7], "Where?")
    reply = turns.see([6, 7, 8], "Who?")
    assert [row.origin for row in reply.plan.rows if row.kind == "image"] == ["moved", "moved", "computed"]
    assert len(turns.conversations._live) == 1


def test_a_branch_keeps_the_other_branch(kamera: Kamera) -> None:
    """Both go on at the cost of what is new, and say what they say in a window of their own."""
    turns, history = Turns(kamera), []
    for question in ("Where is anna?", "And ben?", "And carl?"):
        history.append(question)
        history.append(turns.ask(history).text)
    branch = [*history[:2], "What is in the attic?"]
    small = len(kamera.family.tokens.encode(branch[-1])) + 20
    reply = turns.ask(branch)
    assert reply.usage.tokens_computed < small
    assert reply.usage.tokens_kept > len(kamera.family.tokens.encode(SYSTEM))
    for other in (history, [*branch, reply.text]):
        again = turns.ask([*other, "Thanks."])
        assert again.usage.tokens_computed < small
        assert again.text == Turns(kamera).ask([*other, "Thanks."]).text


def test_agents_that_share_a_conversation_have_windows_of_their_own(kamera: Kamera) -> None:
    """The second one takes a copy of the beginning that both have in common."""
    turns = Turns(kamera)
    first = turns.ask(["Where is anna?"], "actor")
    second = turns.ask(["Where is anna?", "In the attic.", "Is that right?"], "judge")
    assert second.usage.tokens_kept > len(kamera.family.tokens.encode(SYSTEM))
    assert turns.ask(["Where is anna?", first.text, "And ben?"], "actor").usage.tokens_computed < 25


def test_a_conversation_has_few_windows(kamera: Kamera, caplog: pytest.LogCaptureFixture) -> None:
    """Those of calls that were never continued go first."""
    turns = Turns(kamera)
    history = ["Where is anna?"]
    history += [turns.ask(history).text, "And ben?"]
    history += [turns.ask(history).text, "And carl?"]
    for number in range(6):
        turns.ask([f"Summarise this: {number}"], system=f"Summariser {number}")
    assert len(turns.conversations._live) == MAX_WINDOWS
    assert turns.ask(history).usage.tokens_computed < 25
    assert not caplog.records
    for number in range(2):
        turns.ask([f"What is {number}?", "A number.", "And?"], system=f"Counter {number}")
    [record] = caplog.records
    assert "Conversation 'one'" in record.message


def test_agents_that_take_turns_in_one_conversation_keep_their_windows(kamera: Kamera) -> None:
    turns = Turns(kamera)
    histories = [[f"You are agent {number}. Where is anna?"] for number in range(MAX_WINDOWS)]
    for number in range(3):
        for history in histories:
            reply = turns.ask(history)
            assert number == 0 or reply.usage.tokens_computed < 25
            history += [reply.text, "And ben?"]


def test_windows_go_with_the_bounds(kamera: Kamera) -> None:
    turns = Turns(kamera, max_conversations=2)
    for name in ("one", "two", "three"):
        turns.ask(["Where is anna?"], conversation=name)
        turns.ask(["Where is ben?"], conversation=name, system="Other")
    assert len(turns.conversations) == 2
    assert [live.caller.conversation for live in turns.conversations._live] == ["two", "two", "three", "three"]
    small = Turns(kamera, max_bytes=1)
    for name in ("one", "two"):
        small.ask(["Where is anna?"], conversation=name)
    assert len(small.conversations._live) == 1


def test_a_call_that_fails_leaves_the_others_their_windows(kamera: Kamera) -> None:
    """It had begun to copy from a window that another one goes on with."""
    turns = Turns(kamera)
    first = turns.ask(["Where is anna?"])
    with pytest.raises(WindowTooLongError):
        turns.ask(["Where is anna?" * 10_000], "other")
    assert turns.ask(["Where is anna?", first.text, "And ben?"]).usage.tokens_computed < 25
    assert turns.ask(["Where is anna?"], "other").text == first.text


def test_an_image_in_the_window_is_not_decoded_again(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call repeats two images, one of them twice, and adds one. Each encoded image is decoded once."""
    decoded: list[bytes] = []
    for module in (outline, items):

        def decode(image: object, original: Callable[[Any], Any] = module.decode_image) -> Any:
            decoded.extend([image] if isinstance(image, bytes) else [])
            return original(image)

        monkeypatch.setattr(module, "decode_image", decode)
    one, two, three = (encoded(seed) for seed in range(3))
    chat = Chat(kamera, None, {}, Limits(8, 1 << 30, None))
    messages = [Message("user", (one, "and", two))]
    for said in ((one, "again"), (three,)):
        with chat.answer(Request(messages, max_tokens=1)) as stream:
            reply = stream.finish()
        messages += [Message("assistant", (reply.text,)), Message("user", said)]
    with chat.answer(Request(messages, max_tokens=1)) as stream:
        reply = stream.finish()
    assert [row.kind for row in reply.plan.rows].count("image") == 4
    # The twin of the first image is an image of its own in the window; its pixels are read once more.
    assert sorted(decoded) == sorted([one, one, two, three])


def test_namespaces_share_neither_conversations_nor_chunks(kamera: Kamera) -> None:
    """Three clients ask the same in conversations of one name; the third has the namespace of the first."""
    chat = Chat(kamera, None, {}, Limits(8, 1 << 30, None))
    asked = [Message("user", (encoded(0), "What is it?"))]
    replies = []
    for namespace in ("ada", "bob", "ada"):
        with chat.answer(Request(asked, conversation="one", namespace=namespace, max_tokens=2)) as stream:
            replies.append(stream.finish())
        kamera.flush()
    num_tokens = replies[0].plan.num_tokens()
    assert [reply.usage.tokens_computed for reply in replies[:2]] == [num_tokens, num_tokens]
    assert replies[2].usage.tokens_kept > 0.8 * num_tokens
    assert len({reply.text for reply in replies}) == 1
    materials = [json.loads(header.key.material) for header in kamera.store.headers()]
    assert sorted(material["namespace"] for material in materials) == ["ada", "bob"]
    with pytest.raises(SettingError, match="namespace"):
        kamera.window(namespace="")


def encoded(seed: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(screenshot(seed, *SIZE)).save(buffer, "PNG")
    return buffer.getvalue()
