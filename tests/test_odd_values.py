"""Whatever a public method or setting is given, it serves it or raises an error of ours that says what to change."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage

from kamera_agent import (
    DocumentContent,
    Frames,
    FramesContent,
    Guard,
    ImageContent,
    Kamera,
    KameraError,
    Settings,
    TextContent,
    Trace,
    Window,
    sample_fps,
    sample_scenes,
)
from kamera_agent.agent import Budget, ChatKamera, Interval, KeepLast, ScreenWindow, wrap
from kamera_agent.agent.chat_model import OPTIONS
from kamera_agent.config import SETTINGS
from kamera_agent.runtime.families.target import read_device, read_dtype
from kamera_agent.telemetry.trace import read_trace
from kamera_agent.window.options import ANSWER_OPTIONS

VALUES: dict[str, Any] = {
    "None": None,
    "5": 5,
    "-1": -1,
    "1.5": 1.5,
    "nan": math.nan,
    "huge": 10**400,
    "True": True,
    "empty": "",
    "text": "x",
    "nul": "a\0b",
    "half an emoji": "\ud800",
    "bytes": b"",
    "[]": [],
    "[5]": [5],
    "[None]": [None],
    "{}": {},
    "dict": {"a": 1},
    "object": object(),
}
SHOT = np.zeros((28, 28, 3), np.uint8)
CLIP = Path("examples/video_qa/clip.mp4")
FUNCTION = {"name": "look", "parameters": {"type": "object", "properties": {}}}


def tool(**parts: Any) -> list[Any]:
    return [{"type": "function", "function": FUNCTION | parts}]


def shown(block: Any) -> list[Any]:
    return [HumanMessage([block, {"type": "text", "text": "hi"}])]


OF_WINDOWS: dict[str, Callable[[Window, Any], object]] = {
    "add_image": lambda w, v: w.add_image(v),
    "add_frames": lambda w, v: w.add_frames(v),
    "add_text": lambda w, v: w.add_text(v),
    "add_document": lambda w, v: w.add_document(v),
    "role": lambda w, v: w.add_text("a", v),
    "timestamps": lambda w, v: w.add_frames([SHOT, SHOT], v),
    "fps": lambda w, v: w.add_frames([SHOT, SHOT], fps=v),
    "drop": lambda w, v: w.drop(v),
    "recall": lambda w, v: w.recall(v),
    "recall at": lambda w, v: (w.slide(0), w.recall("image2", v)),
    "reorder": lambda w, v: w.reorder(v),
    "slide": lambda w, v: w.slide(v),
    "sync": lambda w, v: w.sync(v),
    "sync system": lambda w, v: w.sync([], v),
    "sync text": lambda w, v: w.sync([TextContent(v)]),
    "sync image": lambda w, v: w.sync([ImageContent(v)]),
    "sync frames": lambda w, v: w.sync([FramesContent(v)]),
    "sync document": lambda w, v: w.sync([DocumentContent(v)]),
    "sync role": lambda w, v: w.sync([TextContent("a", v)]),
    "adopt": lambda w, v: w.adopt(v),
    "plan": lambda w, v: w.plan(v),
    "logits": lambda w, v: w.logits(v),
    "reference_logits": lambda w, v: w.reference_logits(v),
    "pixels": lambda w, v: w.pixels(v),
    "question": lambda w, v: w.generate(v, max_tokens=1),
    "constraint": lambda w, v: w.stream("a", constraint=v, max_tokens=1).finish(),
} | {
    f"answer {name}": lambda w, v, name=name: w.stream("a", **{name: v}).close()  # type: ignore[misc]
    for name in ANSWER_OPTIONS
}

OF_CHATS: dict[str, Callable[[ChatKamera, Any], object]] = {
    "bind_tools": lambda c, v: c.bind_tools(v).invoke("hi"),
    "bind_tools, one": lambda c, v: c.bind_tools([v]).invoke("hi"),
    "tool name": lambda c, v: c.bind_tools(tool(name=v)).invoke("hi"),
    "tool description": lambda c, v: c.invoke("hi", tools=tool(description=v)),
    "tool parameters": lambda c, v: c.invoke("hi", tools=tool(parameters=v)),
    "forced tool name": lambda c, v: c.invoke("hi", tools=tool(name=v), tool_choice="any"),
    "forced tool parameters": lambda c, v: c.invoke("hi", tools=tool(parameters=v), tool_choice="any"),
    "tool choice": lambda c, v: c.bind_tools(tool(), tool_choice=v).invoke("hi"),
    "called schema": lambda c, v: c.with_structured_output(v).invoke("hi"),
    "JSON schema": lambda c, v: c.with_structured_output(v, method="json_schema").invoke("hi"),
    "method": lambda c, v: c.with_structured_output({"title": "a", "type": "object"}, method=v),
    "image": lambda c, v: c.invoke(shown({"type": "image", "base64": v, "mime_type": "image/png"})),
    "image url": lambda c, v: c.invoke(shown({"type": "image_url", "image_url": v})),
    "get_num_tokens": lambda c, v: c.get_num_tokens(v),
    "get_num_tokens_from_messages": lambda c, v: c.get_num_tokens_from_messages(v),
    "counted tools": lambda c, v: c.get_num_tokens_from_messages([HumanMessage("hi")], v),
    "count_image_tokens": lambda c, v: c.count_image_tokens(v),
    "edit": lambda c, v: ScreenWindow().edit(v),
    "wrap": lambda c, v: wrap(v, c),
    "wrap kamera": lambda c, v: wrap(create_agent(c, []), v),
    "wrap window": lambda c, v: wrap(create_agent(c, []), c, v),
    "wrap nodes": lambda c, v: wrap(create_agent(c, []), c, nodes=v),
} | {
    f"call {name}": lambda c, v, name=name: c.invoke("hi", **{name: v})  # type: ignore[misc]
    for name in (*OPTIONS, "stop")
}

OTHERS: dict[str, Callable[[Any], object]] = {
    "store": lambda v: Kamera.pocket(store=v).close() if isinstance(v, list | dict | int | float | bytes) else None,
    "model_id": lambda v: Kamera.from_pretrained(v, None).close(),
    "device": read_device,
    "dtype": read_dtype,
    "sample_fps": lambda v: sample_fps(v),
    "fps of a clip": lambda v: sample_fps(CLIP, v, 2),
    "max_frames": lambda v: sample_fps(CLIP, 1, v),
    "threshold": lambda v: sample_scenes(CLIP, v, 2),
    "Frames": lambda v: Frames(v, (0.0,)),
    "Frames, timestamps": lambda v: Frames(SHOT[None], v),
    "Trace": lambda v: Trace(v),
    "drift_every": lambda v: Trace("t.jsonl", drift_every=v),
    "Guard": lambda v: [Guard(**{field.name: v}) for field in fields(Guard)],
    "read_trace": read_trace,
    "KeepLast": KeepLast,
    "Interval": lambda v: Interval(1, v),
    "Budget": Budget,
    "Settings": lambda v: [Settings(**{name: v}) for name in SETTINGS],
}
OF_SCREENS = ("keep_last", "policy", "pinned", "stub", "folder", "folder_bytes", "count_tokens")
OF_MODELS = [name for name in ChatKamera.model_fields if name not in ("name", "model", "model_kwargs", "kamera")]


@pytest.fixture(scope="module")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera


def serves_or_refuses(call: Callable[[Any], object]) -> None:
    for name, value in VALUES.items():
        try:
            call(value)
        except OutputParserException:
            continue
        except Exception as error:
            if not isinstance(error, KameraError) or not 10 < len(str(error)) < 500:
                raise AssertionError(f"{name}: {error!r}") from error


@pytest.mark.parametrize("name", OF_WINDOWS)
def test_windows(kamera: Kamera, name: str) -> None:
    def call(value: Any) -> None:
        window = kamera.window()
        window.add_text("hi")
        window.add_image(SHOT)
        OF_WINDOWS[name](window, value)

    serves_or_refuses(call)


@pytest.mark.parametrize("name", OF_CHATS)
def test_chats(kamera: Kamera, name: str) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=2)
    serves_or_refuses(lambda value: OF_CHATS[name](chat, value))


@pytest.mark.filterwarnings("ignore:Unrecognized keys in model profile")
@pytest.mark.parametrize("name", OF_MODELS)
def test_fields_of_chats(kamera: Kamera, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    serves_or_refuses(lambda value: ChatKamera(kamera=kamera, **{name: value}))


@pytest.mark.parametrize("name", OF_SCREENS)
def test_fields_of_screen_windows(name: str) -> None:
    serves_or_refuses(lambda value: ScreenWindow(**{name: value}).edit([HumanMessage("hi")]))


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clip = CLIP.absolute()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "CLIP", clip)
    serves_or_refuses(OTHERS[name])


@pytest.mark.parametrize("stub", ["{step.x}", "{}", "{0}", "{step[0]}", "{step!z}", "{step:{x}}", "{other}", "{", 5])
def test_stubs(stub: Any) -> None:
    with pytest.raises(KameraError, match="stub is"):
        ScreenWindow(stub=stub)
