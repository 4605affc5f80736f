"""Tools through OpenAI's own client, called by a model that has learned it."""

import json
from typing import Any

import pytest
from openai import OpenAI
from serving import ABOUT, ARGUMENTS, PARAMETERS, WEATHER, cached, shown, text


def tool(name: str) -> Any:
    return {"type": "function", "function": {"name": name, "description": ABOUT, "parameters": PARAMETERS}}


TOOLS = [tool("get_weather")]


def ask(client: OpenAI, messages: list[Any], **options: Any) -> Any:
    (model,) = client.models.list()
    asked = {"model": model.id, "messages": messages, "tools": TOOLS, "max_tokens": 120}
    return client.chat.completions.create(**asked | options)


def test_a_call_its_result_and_the_answer(caller: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": WEATHER}]
    first = ask(caller, messages)
    message, (call,) = first.choices[0].message, first.choices[0].message.tool_calls
    assert (message.content, first.choices[0].finish_reason) == (None, "tool_calls")
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "get_weather",
        ARGUMENTS,
    )
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "Rain in San Francisco, CA."}]
    answer = ask(caller, messages)
    assert "Rain in San Francisco, CA" in answer.choices[0].message.content
    # All of the first prompt and the call.
    assert cached(answer) >= first.usage.prompt_tokens


@pytest.mark.parametrize("indent", [None, 4])
def test_a_call_that_comes_back_in_another_spelling_is_ours(caller: OpenAI, indent: int | None) -> None:
    """A forced call has no spaces; the chat template would write some. The tokens of the reply are kept."""
    thread = f"spelling {indent}"
    messages: list[Any] = [{"role": "user", "content": WEATHER}]
    first = ask(caller, messages, tool_choice="required", user=thread)
    (call,) = first.choices[0].message.tool_calls
    arguments = json.dumps(json.loads(call.function.arguments), indent=indent)
    sent = {"id": call.id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [sent]},
        {"role": "tool", "tool_call_id": call.id, "content": [text("Rain."), shown(indent or 1)]},
    ]
    assert cached(ask(caller, messages, user=thread, max_tokens=2)) >= first.usage.total_tokens


def test_a_streamed_call(caller: OpenAI) -> None:
    chunks = [*ask(caller, [{"role": "user", "content": WEATHER}], stream=True)]
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    assert {delta.index for delta in deltas} == {0}
    assert [delta.id is not None for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert "".join(delta.function.name or "" for delta in deltas) == "get_weather"
    assert json.loads("".join(delta.function.arguments for delta in deltas)) == ARGUMENTS
    assert len(deltas) > 3
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_tool_choice(caller: OpenAI) -> None:
    messages = [{"role": "user", "content": "Hello."}]
    both = [*TOOLS, tool("call_home")]
    named = {"type": "function", "function": {"name": "call_home"}}
    for choice, names in (("required", {"get_weather", "call_home"}), (named, {"call_home"})):
        reply = ask(caller, messages, tools=both, tool_choice=choice).choices[0].message
        assert {call.function.name for call in reply.tool_calls} <= names
    weather = [{"role": "user", "content": WEATHER}]
    assert ask(caller, weather, tool_choice="none").choices[0].message.tool_calls is None


def test_a_call_that_is_cut_off_is_no_json(caller: OpenAI) -> None:
    """And does not end the conversation."""
    messages: list[Any] = [{"role": "user", "content": WEATHER}]
    cut = ask(caller, messages, max_tokens=14)
    assert cut.choices[0].finish_reason == "length"
    (call,) = cut.choices[0].message.tool_calls
    for arguments in (call.function.arguments, "{never said"):
        sent = {"id": call.id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        history = [*messages, {"role": "assistant", "content": None, "tool_calls": [sent]}, *messages]
        assert ask(caller, history, max_tokens=2).choices[0].finish_reason == "length"
