"""A whole new list of content: what each of the edits that agents make keeps, moves, recalls and computes."""

from typing import Any

import pytest
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot

from kamera_agent import ImageContent, InputError, Kamera, TextContent, Window, WindowError, WindowTooLongError
from kamera_agent.pocket.model import PocketProcessor

Message = tuple[str, list[Any]]


def history(num_turns: int) -> list[Message]:
    """A screen agent's messages: the task, then a screenshot and an action per turn."""
    messages: list[Message] = [("user", ["find the price"])]
    for turn in range(num_turns):
        messages += [("user", [f"step {turn}", screenshot(turn)]), ("assistant", [f"click {turn}"])]
    return messages


def contents(messages: list[Message]) -> list[Any]:
    return [
        TextContent(part, role) if isinstance(part, str) else ImageContent(part, role)
        for role, parts in messages
        for part in parts
    ]


def talk(model: Any, processor: PocketProcessor, messages: list[Message]) -> Conversation:
    conversation = Conversation(model, processor)
    last = None
    for role, parts in messages:
        if role != last:
            conversation.say(role)
        conversation.turns[-1][1].extend(parts)
        last = role
    return conversation


def image_origins(window: Window) -> list[str | None]:
    return [span.origin for span in window.spans if span.kind == "image"]


def stub(messages: list[Message]) -> list[Message]:
    """Drop the first image and leave a text in its place."""
    return [messages[0], ("user", ["step 0", "[screenshot dropped]"]), *messages[2:]]


def drop_turn(messages: list[Message]) -> list[Message]:
    return [messages[0], *messages[3:]]


def anchor_again(messages: list[Message]) -> list[Message]:
    """The first prompt stands on the newest image; the older ones go."""
    newest = messages[-2][1][1]
    texts = [(role, [part for part in parts if isinstance(part, str)]) for role, parts in messages[1:]]
    return [("user", ["find the price", newest]), *texts]


def replace_only(messages: list[Message]) -> list[Message]:
    return [messages[0], ("user", ["step 9", screenshot(9)])]


EDITS = {
    "drop an image, leave a stub": (stub, ["moved", "moved"], 0),
    "drop a turn": (drop_turn, ["moved", "moved"], 0),
    "anchor on another image": (anchor_again, ["moved"], 0),
    "replace the only image": (replace_only, ["computed"], 1),
}


@pytest.mark.parametrize("name", EDITS)
def test_edit(make: MakeKamera, models: dict[str, Any], processor: PocketProcessor, name: str) -> None:
    """Patched: surviving images are moved, none is encoded, and only new text is computed.
    Exact: the logits are those of a full prefill."""
    edit, origins, encoder_calls = EDITS[name]
    before = history(3) if name != "replace the only image" else history(1)
    after = edit(before)
    kamera = make(stale="keep")  # a refresh may compute a survivor whole
    window = kamera.window()
    window.sync(contents(before))
    window.logits()
    kamera.flush()
    encoded = kamera.stats().encoder_calls
    window.sync(contents(after))
    planned = window.plan()
    window.logits()
    assert image_origins(window) == origins
    assert [row.origin for row in planned.rows] == [span.origin for span in window.spans]
    assert kamera.stats().encoder_calls - encoded == encoder_calls
    new_texts = [part for _, parts in after for part in parts if isinstance(part, str)]
    known = [part for _, parts in before for part in parts if isinstance(part, str)]
    computed = [row for row in planned.rows if row.num_computed and row.kind == "text"]
    assert len(computed) == len([text for text in new_texts if text not in known])
    exact = make(fidelity="exact").window()
    for messages in (before, after):
        exact.sync(contents(messages))
        expected = talk(models["qwen2_5_vl"], processor, messages).logits()
        assert max_error(expected, exact.logits()) <= 1e-4


def test_unchanged_list_keeps_everything(make: MakeKamera) -> None:
    window = make().window()
    first = window.sync(contents(history(3)))
    window.logits()
    assert window.sync(contents(history(3))) == first
    assert {row.origin for row in window.plan().rows} == {"kept"}


def test_longer_list_computes_what_is_new(make: MakeKamera) -> None:
    window = make().window()
    window.sync(contents(history(2)))
    window.logits()
    window.sync(contents(history(3)))
    rows = window.plan().rows
    new = [row for row in rows if row.origin == "computed"]
    assert [row.kind for row in new] == ["turn", "text", "image", "turn", "text"]
    assert [row.origin for row in rows[: -len(new)]] == ["kept"] * (len(rows) - len(new))


def test_reply_given_back_as_text_is_the_reply(make: MakeKamera) -> None:
    """An agent hands the generated text back in its message list: its tokens are kept, not computed."""
    window = make().window()
    window.sync([ImageContent(screenshot(0)), TextContent("what?")])
    reply = window.generate(max_new_tokens=6)
    handed_back = [ImageContent(screenshot(0)), TextContent("what?"), TextContent(reply.text, "assistant")]
    ids = window.sync([*handed_back, TextContent("and?")])
    assert ids[2] == reply.span_id
    assert [row.origin for row in window.plan().rows] == ["kept"] * 7 + ["computed"] * 2


def test_image_that_comes_back_in_a_list_is_recalled(make: MakeKamera) -> None:
    kamera = make()
    window = kamera.window()
    window.sync([ImageContent(screenshot(i)) for i in range(3)])
    window.logits("what?")
    kamera.flush()
    window.sync([ImageContent(screenshot(i)) for i in (1, 2)])
    window.logits("what?")
    ids = window.sync([ImageContent(screenshot(i)) for i in range(3)])
    window.logits("what?")
    # The two that were moved come from the store as well: there they are exact among all three.
    assert image_origins(window) == 3 * ["recalled"]
    assert len(set(ids)) == 3


def test_same_image_twice_stays_two_spans(make: MakeKamera) -> None:
    window: Window = make().window()
    twice = [ImageContent(screenshot(0)), TextContent("again"), ImageContent(screenshot(0))]
    ids = window.sync(twice)
    assert len(set(ids)) == 3
    assert window.sync(twice) == ids


def test_sync_takes_ids_and_contents_mixed(make: MakeKamera) -> None:
    kamera: Kamera = make()
    window = kamera.window()
    image, text = window.sync([ImageContent(screenshot(0)), TextContent("look")])
    assert window.sync([text, image, TextContent("new")])[:2] == (text, image)


def test_ids_are_given_to_what_enters_the_window(make: MakeKamera) -> None:
    """Looking ahead, asking without an answer and failing use up no id."""
    window = make().window()
    image, text = ImageContent(screenshot(0)), TextContent("one")
    numbered = int(window.add_text("zero").removeprefix("text"))
    window.plan([image, text])
    window.plan([text])
    window.logits("what?")
    window.reference_logits("what?")
    with pytest.raises(InputError):
        window.sync([image, TextContent("")])
    with pytest.raises(InputError):
        window.add_text("")
    with pytest.raises(WindowTooLongError):
        window.generate("word " * 4000)
    assert window.sync([image, text]) == (f"image{numbered + 1}", f"text{numbered + 2}")
    assert window.generate("what?", max_new_tokens=1).span_id == f"reply{numbered + 4}"
    assert window.add_text("five") == f"text{numbered + 5}"


def test_a_window_adopts_the_beginning_of_another(make: MakeKamera, model: Any) -> None:
    """The copy is its own: both go on, and compute what a plain prefill does."""
    kamera = make(model)
    messages = history(3)
    old, new = kamera.window(), kamera.window()
    old.sync(contents(messages))
    reply = old.generate(max_new_tokens=3)
    branch = [*messages[:4], ("user", ["go back"])]
    new.sync(contents(branch))
    new.adopt(old)
    answer = new.generate(max_new_tokens=3)
    assert answer.usage.tokens_kept == sum(span.num_tokens for span in new.spans[:-3])
    assert answer.usage.tokens_moved == answer.usage.tokens_recalled == 0
    for window, told, text in ((old, messages, reply.text), (new, branch, answer.text)):
        window.check_integrity()
        window.sync([*contents(told), TextContent(text, "assistant"), TextContent("and now?")])
        assert max_error(window.reference_logits(), window.logits()) <= 1e-4
        assert all(span.exact for span in window.spans)
    with old.stream(max_new_tokens=4) as stream:
        next(stream)
        with pytest.raises(WindowError, match="busy"):
            new.adopt(old)
