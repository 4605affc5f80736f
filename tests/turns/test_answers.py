"""Chat without LangChain: what it answers, against a plain window, and what it reports."""

from io import BytesIO
from pathlib import Path
from typing import NoReturn

import pytest
from models import screenshot
from PIL import Image
from prometheus_client import CollectorRegistry

from kamera_agent import InputError, Kamera, SettingError, StoreClosedError, Trace
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.telemetry.trace import read_trace
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.message import Message
from kamera_agent.window.window import Window

LIMITS = Limits(max_conversations=4, max_bytes=1 << 30, max_string=None)


@pytest.fixture(scope="module")
def question() -> Message:
    buffer = BytesIO()
    Image.fromarray(screenshot(1)).save(buffer, "PNG")
    return Message("user", (buffer.getvalue(), "Where is anna?"))


def answer(chat: Chat, request: Request) -> str:
    with chat.answer(request) as stream:
        return stream.finish().text


def test_it_answers_as_a_window_does(kamera: Kamera, question: Message) -> None:
    window = kamera.window()
    window.add_image(screenshot(1))
    expected = window.generate("Where is anna?", max_new_tokens=4).text
    with Chat(kamera, None, {}, LIMITS) as chat:
        assert answer(chat, Request([question], max_tokens=4)) == expected


def test_an_answer_is_reported_when_it_is_whole(kamera: Kamera, question: Message, tmp_path: Path) -> None:
    """One that is left early is not, and the next one is as if it had never begun."""
    trace = Trace(tmp_path / "trace.jsonl")
    with Chat(kamera, None, {}, LIMITS, trace=trace) as chat:
        whole = answer(chat, Request([question], "whole", max_tokens=8))
        with chat.answer(Request([question], "left", max_tokens=8)) as stream:
            next(stream)
        assert answer(chat, Request([question], "left", max_tokens=8)) == whole
    assert len(read_trace(tmp_path / "trace.jsonl")) == 2


class Broken:
    """Fails at whatever is asked of it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"no {name}")


@pytest.mark.parametrize("broken", ["trace", "thumbnails", "metrics", "spans", "drift"])
def test_telemetry_never_fails_an_answer(
    kamera: Kamera,
    question: Message,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("out of memory")

    with Chat(kamera, None, {}, LIMITS) as chat:
        expected = answer(chat, Request([question], max_tokens=4))
    trace = Trace("/dev/full" if broken == "trace" else tmp_path / "t", thumbnails=True, drift_every=1)
    metrics = Metrics(CollectorRegistry())
    if broken == "thumbnails":
        monkeypatch.setattr("kamera_agent.telemetry.record.thumbnail", fail)
    elif broken == "metrics":
        monkeypatch.setattr(metrics, "_times", Broken())
    elif broken == "spans":
        monkeypatch.setattr("kamera_agent.telemetry.spans.trace.get_tracer", fail)
    elif broken == "drift":
        monkeypatch.setattr(Window, "reference_logits", fail)
    with Chat(kamera, None, {}, LIMITS, trace=trace, metrics=metrics) as chat:
        for number in range(3):
            assert answer(chat, Request([question], str(number), max_tokens=4)) == expected
    assert len(caplog.records) == 1


def test_an_encrypted_store_allows_no_thumbnails(
    kamera: Kamera, question: Message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be pictures in the clear. A trace without them goes on."""
    monkeypatch.setattr(type(kamera.store), "is_encrypted", True)
    request = Request([question], max_tokens=1)
    with (
        Chat(kamera, None, {}, LIMITS, trace=Trace(tmp_path / "t", thumbnails=True)) as chat,
        pytest.raises(SettingError, match="the thumbnails of a trace are not"),
    ):
        answer(chat, request)
    assert not (tmp_path / "t").exists()
    with Chat(kamera, None, {}, LIMITS, trace=Trace(tmp_path / "t")) as chat:
        answer(chat, request)
    assert len(read_trace(tmp_path / "t")) == 1


def test_a_name_that_is_no_unicode_leaves_the_trace_readable(kamera: Kamera, question: Message, tmp_path: Path) -> None:
    with Chat(kamera, None, {}, LIMITS, trace=Trace(tmp_path / "t")) as chat:
        answer(chat, Request([question], "a\ud800b", max_tokens=1))
    assert [record.conversation for record in read_trace(tmp_path / "t")] == ["a?b"]


def test_a_schema_goes_before_a_forced_call(kamera: Kamera) -> None:
    tool = {"type": "function", "function": {"name": "click", "parameters": {"type": "object", "properties": {}}}}
    messages = [Message("user", ("Look.",))]
    with Chat(kamera, None, {}, LIMITS) as chat:
        forced = Request(messages, tools=[tool], tool_choice="any", max_tokens=40)
        assert answer(chat, forced).startswith("<tool_call>")
        held = Request(messages, tools=[tool], tool_choice="any", schema={"enum": ["yes"]}, max_tokens=40)
        assert answer(chat, held) == '"yes"'
        with pytest.raises(InputError, match="'jump'"):
            answer(chat, Request(messages, tools=[tool], tool_choice="jump"))


def test_a_closed_chat_answers_no_more(kamera: Kamera, question: Message) -> None:
    chat = Chat(kamera, None, {}, LIMITS)
    chat.close()
    chat.close()
    for call in (chat.open, lambda: chat.over("other/model"), lambda: answer(chat, Request([question]))):
        with pytest.raises(StoreClosedError, match="closed"):
            call()
    kamera.flush()
