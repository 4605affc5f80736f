"""Chat without LangChain: what it answers, against a plain window, and what it reports."""

from io import BytesIO
from pathlib import Path

import pytest
from models import screenshot
from PIL import Image

from kamera_agent import InputError, Kamera, StoreClosedError, Trace
from kamera_agent.telemetry.trace import read_trace
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.message import Message

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
