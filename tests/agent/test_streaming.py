"""Streams of ChatKamera against whole replies, for any text that a model may generate."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from kamera_agent import Kamera, Plan, Reply, Timings, Usage
from kamera_agent.agent import ChatKamera
from kamera_agent.turns.chat import Chat
from kamera_agent.turns.grammar import Grammars
from kamera_agent.turns.tool_calls import OPENING
from kamera_agent.window.reply import ReplyStream

CALL = '<tool_call>\n{"name": "a", "arguments": {"b": "</c>"}}\n</tool_call>'
# Words that replies are made of: text, blanks, calls, and what looks like the beginning of a call or of its end.
WORDS = [
    "I click it.",
    "3 < 4",
    "<",
    "<tool_",
    "</tool_",
    "tool_call>",
    " ",
    "\n\n",
    CALL,
    "<tool_call>",
    "</tool_call>",
    '{"name": "a", "arguments": ',
    '{"b": ["</tool_call>", "',
    "\\",
    '"',
    "{",
    "}",
    "]",
]


def saying(text: str, cuts: list[int], finish_reason: Any = "stop") -> Any:
    """Takes the place of Chat.answer: streams a text that is cut in some places."""
    ends = sorted({cut % (len(text) + 1) for cut in cuts} | {len(text)})
    usage, plan = Usage(*[0] * 11), Plan(())

    def generate(replies: list[Reply]) -> Generator[str, None, None]:
        yield from (text[start:end] for start, end in zip([0, *ends], ends, strict=False))
        replies.append(Reply(text, "reply1", finish_reason, usage, Timings(0, 0, 0, 0, 0), plan))

    @contextmanager
    def answer(self: Chat, *request: Any) -> Iterator[ReplyStream]:
        replies: list[Reply] = []
        yield ReplyStream(generate(replies), replies)

    return answer


def total(chunks: Iterator[Any]) -> AIMessageChunk:
    first, *rest = chunks
    return sum(rest, first)


def check(model: ChatKamera, text: str, cuts: list[int], finish_reason: Any = "stop") -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chat, "answer", saying(text, cuts, finish_reason))
        streamed, whole = total(model.stream("Go.")), model.invoke("Go.")
    assert streamed.content == whole.content
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [
        (call["name"], call["args"]) for call in whole.tool_calls
    ]
    assert [(call["name"], call["args"]) for call in streamed.invalid_tool_calls] == [
        (call["name"], call["args"]) for call in whole.invalid_tool_calls
    ]
    assert streamed.response_metadata == whole.response_metadata
    return whole


@pytest.fixture(scope="module")
def model() -> ChatKamera:
    return ChatKamera(model="never/loaded")


@settings(deadline=None)
@given(
    text=st.lists(st.sampled_from(WORDS)).map("".join),
    cuts=st.lists(st.integers(0, 200)),
    finish_reason=st.sampled_from(["stop", "length"]),
)
def test_a_stream_is_its_message(model: ChatKamera, text: str, cuts: list[int], finish_reason: str) -> None:
    check(model, text, cuts, finish_reason)


def test_a_call_is_streamed_as_it_is_generated(model: ChatKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenAI's streams: the name and the id first, then the arguments in pieces."""
    monkeypatch.setattr(Chat, "answer", saying(f"So: {CALL}", list(range(200))))
    calls = [call for chunk in model.stream("Go.") for call in chunk.tool_call_chunks]
    assert [call["name"] for call in calls] == ["a", *[None] * (len(calls) - 1)]
    assert [bool(call["id"]) for call in calls] == [True, *[False] * (len(calls) - 1)]
    assert [call["args"] for call in calls] == ["", *'{"b": "</c>"}']


@pytest.mark.parametrize("length", range(len(OPENING), len(CALL) - len("}\n</tool_call>") + 1))
def test_a_call_that_max_tokens_cuts_is_invalid(model: ChatKamera, length: int) -> None:
    whole = check(model, CALL[:length], list(range(200)), "length")
    [invalid] = whole.invalid_tool_calls
    assert whole.tool_calls == []
    assert "max_tokens" in invalid["error"]
    assert "max_tokens" in invalid["args"] or invalid["args"].startswith(OPENING)
    assert invalid["name"] == ("a" if length >= CALL.index('"a"') + 3 else None)


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_text_around_a_call_is_streamed(model: ChatKamera, every: int) -> None:
    text = f"\n\nI click it.{CALL}Then I wait."
    whole = check(model, text, list(range(0, len(text), every)))
    assert whole.content == "\n\nI click it.Then I wait."
    assert [call["args"] for call in whole.tool_calls] == [{"b": "</c>"}]


def test_json_may_hold_what_looks_like_a_call(kamera: Kamera) -> None:
    reply = f"So: {CALL}on."
    model = ChatKamera(kamera=kamera, max_tokens=200).bind(response_format={"enum": [reply]}, conversation="json")
    whole = model.invoke("Look.")
    assert json.loads(whole.text) == json.loads(total(model.stream("Look.")).text) == reply
    assert whole.tool_calls == whole.invalid_tool_calls == []


def invoked(model: Any, messages: list[Any]) -> AIMessage:
    return model.invoke(messages)


def streamed(model: Any, messages: list[Any]) -> AIMessage:
    return total(model.stream(messages))


@pytest.mark.parametrize("way", [invoked, streamed], ids=lambda way: way.__name__)
@pytest.mark.parametrize("call", [CALL, CALL[:40], OPENING], ids=["a call", "a call cut off", "an opening"])
def test_what_the_model_generated_is_kept(way: Any, call: str, kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next turn computes what is new: a tool message, and the markup of its turn and of the reply's."""
    text = f"\n\nI click it. {call}" + ("Then I wait. \n" if call == CALL else "")
    monkeypatch.setattr(Grammars, "chosen", lambda self, *_: self._matcher(f"start: {json.dumps(text)}"))
    model = ChatKamera(kamera=kamera, max_tokens=200).bind(conversation=f"{way.__name__} {call}")
    first = way(model, [HumanMessage("Look.")])
    assert first.response_metadata["kamera"]["said"] == text
    usage = first.usage_metadata
    second = model.invoke([HumanMessage("Look."), first, ToolMessage("done", tool_call_id="1")], max_tokens=4)
    assert second.response_metadata["kamera"]["origins"]["kept"] >= usage["input_tokens"] + usage["output_tokens"] - 1
