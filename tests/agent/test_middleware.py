"""ScreenWindow under create_agent: what the model sees, what the state holds, and what look_back brings."""

import asyncio
import base64
import gc
import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import PrivateAttr

from kamera_agent import Kamera, SettingError
from kamera_agent.agent import Budget, ChatKamera, Interval, KeepLast, ScreenWindow
from kamera_agent.agent.pixels import PREFIX, PixelFolder
from kamera_agent.turns.policy import Policy

Block = Callable[[int], dict[str, str]]
PNG = Callable[[int], bytes]


class Scripted(BaseChatModel):
    """Calls the tools of a script, then says "done"; remembers what it was shown."""

    script: list[dict[str, Any]]
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        self._seen.append(messages)
        step = sum(isinstance(message, AIMessage) for message in messages)
        calls = [self.script[step] | {"id": f"call{step}"}] if step < len(self.script) else []
        return ChatResult(generations=[ChatGeneration(message=AIMessage("" if calls else "done", tool_calls=calls))])


def images(messages: Sequence[BaseMessage]) -> list[bytes]:
    return [
        base64.b64decode(block["base64"])
        for message in messages
        for block in message.content_blocks
        if block["type"] == "image" and "base64" in block
    ]


def texts(messages: Sequence[BaseMessage]) -> str:
    return "\n".join(message.text for message in messages)


@pytest.fixture
def screenshot(image_block: Block) -> Any:
    @tool
    def screenshot(page: int) -> list[dict[str, Any]]:
        """The screen of a page."""
        return [{"type": "text", "text": f"page {page}"}, image_block(page)]

    return screenshot


def shot(page: int) -> dict[str, Any]:
    return {"name": "screenshot", "args": {"page": page}}


def look(*steps: int) -> dict[str, Any]:
    return {"name": "look_back", "args": {"steps": [*steps]}}


def history(image_block: Block, pages: Sequence[int]) -> list[AnyMessage]:
    return [HumanMessage([{"type": "text", "text": f"page {page}"}, image_block(page)]) for page in pages]


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (KeepLast(1), [6]),
        (KeepLast(3), [4, 5, 6]),
        (KeepLast(5), [2, 3, 4, 5, 6]),
        (Interval(keep=3, drop=2), [3, 4, 5, 6]),
        (KeepLast(0), []),
    ],
)
def test_the_model_sees_what_the_policy_keeps(
    tmp_path: Path, image_block: Block, png: PNG, policy: Policy, shown: list[int]
) -> None:
    window = ScreenWindow(policy=policy, folder=tmp_path)
    seen = window.edit(history(image_block, range(1, 7)))
    assert images(seen) == [png(page) for page in shown]
    for page in range(1, 7):
        assert (f"step {page} is not shown" in texts(seen)) == (page not in shown)


def test_pinned_steps_stay(tmp_path: Path, image_block: Block, png: PNG) -> None:
    seen = ScreenWindow(keep_last=1, pinned=[1], folder=tmp_path).edit(history(image_block, range(1, 5)))
    assert images(seen) == [png(1), png(4)]


def test_an_unchanged_screen_is_sent_once(tmp_path: Path, image_block: Block, png: PNG) -> None:
    seen = ScreenWindow(keep_last=2, folder=tmp_path).edit(history(image_block, [1, 2, 2, 2, 3]))
    assert images(seen) == [png(2), png(3)]
    assert texts(seen).count("looks as in step 2") == 2
    # Once step 2 has left, there is nothing to refer to.
    gone = ScreenWindow(keep_last=1, folder=tmp_path).edit(history(image_block, [1, 2, 2, 3]))
    assert "looks as" not in texts(gone)
    assert "step 3 is not shown" in texts(gone)


def test_a_budget_counts_the_models_own_tokens(tmp_path: Path, kamera: Kamera, image_block: Block, png: PNG) -> None:
    model = ChatKamera(kamera=kamera)
    counts = [model.count_image_tokens(png(page)) for page in range(1, 5)]
    window = ScreenWindow(policy=Budget(counts[2] + counts[3]), folder=tmp_path)
    assert images(window.edit(history(image_block, range(1, 5)), model)) == [png(3), png(4)]
    with pytest.raises(SettingError, match="count_tokens"):
        window.edit(history(image_block, [1]))


def test_pixels_are_decoded_and_counted_once(
    tmp_path: Path, image_block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the history is shown. A message that was changed, or an image that is gone, is read again."""
    decoded: list[bytes] = []
    decode = base64.b64decode
    monkeypatch.setattr(base64, "b64decode", lambda text, **_: (decoded.append(text), decode(text))[1])
    counted: list[bytes] = []
    window = ScreenWindow(policy=Budget(9), folder=tmp_path, count_tokens=lambda image: (counted.append(image), 1)[1])
    data_url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_block(4)['base64']}"}}
    messages = [*history(image_block, [1, 2, 3]), HumanMessage([data_url])]
    expected = window.edit(messages)
    assert (len(decoded), len(counted)) == (4, 4)
    for _ in range(3):
        assert window.edit(messages) == expected
    assert (len(decoded), len(counted)) == (4, 4)
    messages[0].content[1]["base64"] = image_block(5)["base64"]  # type: ignore[index, call-overload]
    expected = window.edit(messages)
    assert (len(decoded), len(counted)) == (5, 5)
    for file in tmp_path.iterdir():
        file.unlink()
    assert window.edit(messages) == expected
    assert (len(decoded), len(counted)) == (9, 5)


def test_what_was_read_of_a_message_goes_with_it(tmp_path: Path, image_block: Block) -> None:
    window = ScreenWindow(folder=tmp_path)
    window.edit(history(image_block, [1, 2]))
    gc.collect()
    assert len(window._stowage._known) == 0


@pytest.mark.parametrize("hook", ["abefore_agent", "abefore_model", "awrap_tool_call", "awrap_model_call"])
async def test_the_loop_goes_on_while_files_are_written(
    hook: str, tmp_path: Path, image_block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing waits for the loop, which would wait for ever if it were written there."""
    went_on = threading.Event()
    put = PixelFolder.put

    def slow_put(self: PixelFolder, data: bytes) -> str:
        assert went_on.wait(5), "the loop stood still"
        return put(self, data)

    async def handle(request: Any) -> Any:
        return messages[0]

    monkeypatch.setattr(PixelFolder, "put", slow_put)
    window, messages = ScreenWindow(folder=tmp_path), [ToolMessage([image_block(1)], tool_call_id="1")]
    request = ModelRequest(model=Scripted(script=[]), messages=[*messages])
    calls: dict[str, Callable[[], Any]] = {
        "abefore_agent": lambda: window.abefore_agent({"messages": [*messages]}, Runtime()),
        "abefore_model": lambda: window.abefore_model({"messages": [*messages]}, Runtime()),
        "awrap_tool_call": lambda: window.awrap_tool_call(request, handle),  # type: ignore[arg-type]
        "awrap_model_call": lambda: window.awrap_model_call(request, handle),
    }
    running = asyncio.ensure_future(calls[hook]())
    await asyncio.sleep(0.05)
    went_on.set()
    await running
    assert len([*tmp_path.iterdir()]) == 1


def test_look_back_brings_the_same_pixels(tmp_path: Path, screenshot: Any, png: PNG) -> None:
    model = Scripted(script=[shot(1), shot(2), shot(3), look(1), look(9), look()])
    agent = create_agent(model, [screenshot], middleware=[ScreenWindow(keep_last=1, folder=tmp_path)])
    agent.invoke({"messages": [HumanMessage("Go.")]})
    assert images(model._seen[3]) == [png(3)]
    assert images(model._seen[4]) == [png(1), png(3)]
    assert "There is no screenshot of step 9" in texts(model._seen[5])
    assert "step 2: page 2" in texts(model._seen[6])


def test_the_same_asynchronously(tmp_path: Path, screenshot: Any, png: PNG) -> None:
    model = Scripted(script=[shot(1), shot(2), look(1)])
    agent = create_agent(model, [screenshot], middleware=[ScreenWindow(keep_last=1, folder=tmp_path)])
    asyncio.run(agent.ainvoke({"messages": [HumanMessage("Go.")]}))
    assert images(model._seen[3]) == [png(1), png(2)]


def test_what_was_looked_back_at_stays_until_the_next_screenshot(tmp_path: Path, screenshot: Any, png: PNG) -> None:
    script = [shot(1), shot(2), shot(3), look(1), look(2), look(), shot(4), look(9)]
    model = Scripted(script=script)
    agent = create_agent(model, [screenshot], middleware=[ScreenWindow(keep_last=1, folder=tmp_path)])
    agent.invoke({"messages": [HumanMessage("Go.")]})
    assert [images(seen) for seen in model._seen[3:]] == [
        [png(3)],
        [png(1), png(3)],
        [png(1), png(2), png(3)],
        [png(1), png(2), png(3)],
        [png(4)],
        [png(4)],
    ]


def test_a_look_back_beside_a_new_screenshot_counts(tmp_path: Path, image_block: Block, png: PNG) -> None:
    """Two calls at once: whichever answer comes first."""
    told = ToolMessage("Shown.", name="look_back", tool_call_id="1", artifact=[1])
    new = ToolMessage([image_block(2)], tool_call_id="2")
    for answers in ([told, new], [new, told]):
        window = ScreenWindow(keep_last=1, folder=tmp_path)
        shown = window.edit([*history(image_block, [1]), AIMessage("both"), *answers])
        assert images(shown) == [png(1), png(2)]


def first_image(model: ChatKamera, conversation: str) -> Any:
    """KV of the first image in a live window: per layer (K before RoPE, V)."""
    lives = model._chat.open().conversations._live
    [residence] = [live.window._assembly.residence for live in lives if live.caller.conversation == conversation]
    resident = next(resident for resident in residence.residents if resident.place.item.kind == "image")
    return residence.pool.read(resident.slots)


def test_the_kv_that_look_back_brings_is_that_of_the_encoded_pixels(
    tmp_path: Path, exact: Kamera, png: PNG, image_block: Block
) -> None:
    """At full rank (50 tokens), recalled from the store, against a window that computes the same messages."""
    with Kamera.pocket(rank=50) as kamera:
        model, window = ChatKamera(kamera=kamera, max_tokens=1), ScreenWindow(keep_last=1, folder=tmp_path)
        messages: list[AnyMessage] = []
        for page in (4, 2, 3):
            messages += [*history(image_block, [page]), AIMessage(f"went to {page}")]
            model.invoke(window.edit(messages), conversation="looks")
            kamera.flush()
        messages.append(ToolMessage("Shown.", name="look_back", tool_call_id="1", artifact=[1]))
        reply = model.invoke(window.edit(messages), conversation="looks")
        assert reply.response_metadata["kamera"]["origins"]["recalled"] == model.count_image_tokens(png(4)) == 50
        recalled = first_image(model, "looks")
    encoded = ChatKamera(kamera=exact, max_tokens=1)
    encoded.invoke(window.edit(messages), conversation="looks")
    torch.testing.assert_close(recalled, first_image(encoded, "looks"), atol=1e-3, rtol=1e-3)


def test_the_state_holds_no_pixels(tmp_path: Path, screenshot: Any, image_block: Block) -> None:
    """Twenty turns with a screenshot each."""
    saver = InMemorySaver()
    model = Scripted(script=[shot(page) for page in range(20)])
    agent = create_agent(model, [screenshot], middleware=[ScreenWindow(folder=tmp_path)], checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "one"}, "recursion_limit": 100}
    state = agent.invoke({"messages": history(image_block, [50])}, config)
    blocks = [block for message in state["messages"] if isinstance(message.content, list) for block in message.content]
    ids = [block["file_id"] for block in blocks if "file_id" in block]
    assert len(ids) == 21
    assert all(image_id.startswith(PREFIX) for image_id in ids)
    stored = saver.get_tuple(config)
    assert stored is not None
    assert len(saver.serde.dumps_typed(stored.checkpoint)[1]) < 1 << 20
    assert b"base64" not in saver.serde.dumps_typed(stored.checkpoint)[1]


def test_an_agent_goes_on_after_a_restart(tmp_path: Path, kamera: Kamera, screenshot: Any, image_block: Block) -> None:
    """Another middleware and another model object over the same checkpoint answer as the first would have."""
    saver = InMemorySaver()
    answers = []
    for thread, fresh in (("kept", False), ("new", True)):

        def build() -> Any:
            model = ChatKamera(kamera=kamera, max_tokens=4)
            middleware = [ScreenWindow(keep_last=1, folder=tmp_path)]
            return create_agent(model, [screenshot], middleware=middleware, checkpointer=saver)

        agent = build()
        config: Any = {"configurable": {"thread_id": thread}}
        agent.invoke({"messages": history(image_block, [1])}, config)
        agent = build() if fresh else agent
        answers.append(agent.invoke({"messages": history(image_block, [2])}, config)["messages"][-1].content)
    assert answers[0] == answers[1]


def stowed_history(window: ScreenWindow, image_block: Block, pages: Sequence[int]) -> list[AnyMessage]:
    """A state as the middleware leaves it."""
    update = window.before_agent({"messages": history(image_block, pages)}, Runtime())
    assert update is not None
    messages: list[AnyMessage] = update["messages"]
    return messages


PAGE = base64.b64encode(b"<html>502 Bad Gateway</html>").decode()
CUT = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAA"


@pytest.mark.parametrize("data", [PAGE, CUT, "*", ""], ids=["page", "cut", "no base64", "empty"])
def test_a_screenshot_that_is_no_image_becomes_a_stub(
    data: str, tmp_path: Path, image_block: Block, png: PNG, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn goes on, as do later ones; the error is logged once, and the policy counts the others."""

    @tool
    def screenshot(page: int) -> list[dict[str, Any]]:
        """The screen of a page."""
        return [image_block(page) if page != 2 else {"type": "image", "base64": data, "mime_type": "image/png"}]

    model = Scripted(script=[shot(1), shot(2), shot(3), look(2)])
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "one"}}
    agent = create_agent(model, [screenshot], middleware=[ScreenWindow(2, folder=tmp_path)], checkpointer=saver)
    agent.invoke({"messages": [HumanMessage("Go.")]}, config)  # type: ignore[arg-type]
    assert images(model._seen[2]) == [png(1)]
    assert images(model._seen[3]) == [png(1), png(3)]
    assert "The screenshot of step 2 could not be read: " in texts(model._seen[3])
    assert "no pixels of step 2 any more" in texts(model._seen[4])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("policy", [KeepLast(2), Budget(25)], ids=["KeepLast", "Budget"])
def test_a_screenshot_that_is_gone_becomes_a_stub(
    policy: Policy, tmp_path: Path, image_block: Block, png: PNG, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three, the first one and the last one. The folder is another process's as well."""
    window = ScreenWindow(policy=policy, folder=tmp_path / "all", count_tokens=lambda image: 10)
    state = stowed_history(window, image_block, [1, 2, 3])
    other = ScreenWindow(policy=policy, folder=tmp_path / "some", count_tokens=lambda image: 10)
    assert not images(other.edit(state))
    assert texts(other.edit(state)).count("no longer stored") == 2 + (policy == Budget(25))
    stowed_history(other, image_block, [2])
    for _ in range(2):
        seen = other.edit([*state, *looked_at(1)])
        assert images(seen) == [png(2)]
        assert "The screenshot of step 3 is no longer stored." in texts(seen)
        assert "The screenshot of step 1 is no longer stored." in texts(seen)
    assert len(caplog.records) == 3
    assert images(window.edit(state)) == [png(2), png(3)]


def looked_at(step: int) -> list[AnyMessage]:
    return [ToolMessage("Shown.", name="look_back", tool_call_id="1", artifact=[step])]


def test_budget_reads_no_older_screenshots_than_it_shows(tmp_path: Path, image_block: Block, png: PNG) -> None:
    counted: list[bytes] = []
    window = ScreenWindow(policy=Budget(15), folder=tmp_path, count_tokens=lambda image: (counted.append(image), 10)[1])
    assert images(window.edit(history(image_block, range(1, 6)))) == [png(5)]
    assert counted == [png(5), png(4)]


def test_pixels_that_the_caller_still_holds_heal_the_folder(tmp_path: Path, image_block: Block, png: PNG) -> None:
    window, messages = ScreenWindow(folder=tmp_path), history(image_block, [1, 2])
    window.edit(messages)
    for number, place in enumerate(sorted(tmp_path.iterdir())):
        place.write_bytes(place.read_bytes()[:-1] + b"?" if number else b"")
    assert images(window.edit(messages)) == [png(1), png(2)]


def test_the_time_in_a_png_makes_no_other_screen(tmp_path: Path, png: PNG) -> None:
    messages = []
    for second in range(3):
        info, file = PngInfo(), BytesIO()
        info.add_text("Creation Time", f"12:00:0{second}")
        Image.open(BytesIO(png(1))).save(file, "PNG", pnginfo=info)
        data = base64.b64encode(file.getvalue()).decode()
        messages.append(HumanMessage([{"type": "image", "base64": data, "mime_type": "image/png"}]))
    seen = ScreenWindow(folder=tmp_path).edit(messages)
    assert len(images(seen)) == 1
    assert texts(seen).count("looks as in step 1") == 2


def test_a_full_disk_leaves_the_pixels_in_the_messages(
    tmp_path: Path, screenshot: Any, png: PNG, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Screens keep their steps there, and go into the folder once there is room."""
    write, full = PixelFolder._write, [True]

    def limited(self: PixelFolder, *rest: Any) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        write(self, *rest)

    monkeypatch.setattr(PixelFolder, "_write", limited)
    model = Scripted(script=[shot(1), shot(2), shot(2), look(1)])
    config: Any = {"configurable": {"thread_id": "one"}}
    window = ScreenWindow(1, folder=tmp_path)
    agent = create_agent(model, [screenshot], middleware=[window], checkpointer=InMemorySaver())
    state = agent.invoke({"messages": [HumanMessage("Go.")]}, config)
    assert images(model._seen[2]) == [png(2)]
    assert "step 1 is not shown" in texts(model._seen[2])
    assert "looks as in step 2" in texts(model._seen[3])
    assert images(model._seen[4]) == [png(1), png(2)]
    assert len(images(state["messages"])) == 3
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    full[0] = False
    state = agent.invoke({"messages": [HumanMessage("Go on.")]}, config)
    assert not images(state["messages"])
    assert len([*tmp_path.iterdir()]) == 2
    assert images(model._seen[-1]) == [png(1), png(2)]


def test_a_folder_that_cannot_be_made(tmp_path: Path, image_block: Block, png: PNG) -> None:
    (tmp_path / "file").write_bytes(b"")
    window = ScreenWindow(folder=tmp_path / "file" / "pixels")
    assert images(window.edit(history(image_block, [1, 2]))) == [png(1), png(2)]


def test_states_of_earlier_versions(tmp_path: Path, png: PNG) -> None:
    """Ids of encoded bytes, without steps; one of them never was an image."""
    datas = [png(1), b"<html>", png(2)]
    messages = []
    for data in datas:
        digest = blake3(data).hexdigest()
        (tmp_path / digest).write_bytes(data)
        messages.append(HumanMessage([{"type": "image", "file_id": PREFIX + digest}], id=digest[:9]))
    window = ScreenWindow(keep_last=2, pinned=[1], folder=tmp_path)
    update = window.before_agent({"messages": [*messages]}, Runtime())
    assert update is not None
    for each in (messages, update["messages"]):
        assert images(window.edit(each)) == [png(1), png(2)]
        assert "The screenshot of step 2 could not be read: not an image" in texts(window.edit(each))


def test_bad_stubs(tmp_path: Path) -> None:
    for stub in ("{nope}", "{}", "{"):
        with pytest.raises(SettingError, match="only name"):
            ScreenWindow(stub=stub, folder=tmp_path)


def test_a_failing_tool_leaves_the_conversation_usable(tmp_path: Path, kamera: Kamera, image_block: Block) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4)
    agent = create_agent(model, [], middleware=[ScreenWindow(folder=tmp_path)])
    messages: list[AnyMessage] = [*history(image_block, [1]), ToolMessage("boom", tool_call_id="1", status="error")]
    first = agent.invoke({"messages": messages}, {"configurable": {"thread_id": "fails"}})
    again = agent.invoke({"messages": messages}, {"configurable": {"thread_id": "again"}})
    assert first["messages"][-1].content == again["messages"][-1].content


def test_an_encrypted_store_needs_an_encrypted_folder(
    tmp_path: Path, kamera: Kamera, image_block: Block, png: PNG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a Kamera, and by the options of a model that is not loaded yet."""
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    unloaded = ChatKamera(model="pocket", model_kwargs={"encryption_key": "env:NOWHERE"})
    monkeypatch.setattr(type(kamera.store), "is_encrypted", True)
    key = {"encryption_key": lambda: bytes(32)}
    for model in (unloaded, ChatKamera(kamera=kamera)):
        with pytest.raises(SettingError, match="the pixels of this ScreenWindow are not"):
            ScreenWindow(folder=tmp_path / "plain").edit(history(image_block, [1]), model)
        assert not (tmp_path / "plain").exists()
        assert images(ScreenWindow(folder=tmp_path / "safe", **key).edit(history(image_block, [1]), model)) == [png(1)]
    assert not ChatKamera(model="pocket").is_encrypted
