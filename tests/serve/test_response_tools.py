"""Functions and a computer through OpenAI's Responses."""

import json
from typing import Any

import pytest
from jsonschema import validate
from openai import OpenAI
from serving import ABOUT, ARGUMENTS, PARAMETERS, WEATHER, encoded

from kamera_agent.serve.responses.tools import read_tool

PREVIEW = {"type": "computer_use_preview", "display_width": 640, "display_height": 480, "environment": "browser"}


def tool(name: str) -> Any:
    return {"type": "function", "name": name, "description": ABOUT, "parameters": PARAMETERS}


TOOLS = [tool("get_weather")]


def ask(client: OpenAI, items: Any, **options: Any) -> Any:
    (model,) = client.models.list()
    asked = {"model": model.id, "input": items, "tools": TOOLS, "max_output_tokens": 120}
    return client.responses.create(**asked | options)


def test_a_call_its_result_and_the_answer(caller: OpenAI) -> None:
    first = ask(caller, WEATHER)
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", ARGUMENTS)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain in San Francisco, CA."}
    after = ask(caller, [result], previous_response_id=first.id)
    whole = ask(caller, [{"role": "user", "content": WEATHER}, call, result])
    assert "Rain in San Francisco, CA" in after.output_text
    assert after.output_text == whole.output_text
    for answer in (after, whole):
        assert answer.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens


def test_a_streamed_call(caller: OpenAI) -> None:
    (model,) = caller.models.list()
    with caller.responses.stream(model=model.id, input=WEATHER, tools=TOOLS, max_output_tokens=120) as stream:
        names = [event.type.removeprefix("response.") for event in stream]
        final = stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", ARGUMENTS)
    assert names[2] == "output_item.added"
    assert len({*names[3:-3]}) == 1
    assert names[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]


def test_tool_choice(caller: OpenAI) -> None:
    both = [*TOOLS, tool("call_home")]
    for choice, names in (
        ("required", {"get_weather", "call_home"}),
        ({"type": "function", "name": "call_home"}, {"call_home"}),
    ):
        assert {call.name for call in ask(caller, "Hello.", tools=both, tool_choice=choice).output} <= names
    assert [item.type for item in ask(caller, WEATHER, tool_choice="none").output] == ["message"]


@pytest.mark.parametrize("kind", ["computer_use_preview", "computer"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_computer(caller: OpenAI, kind: str, stream: bool) -> None:
    """Decoding holds an action to its schema. The screenshot that follows is a result of the tool."""
    options: dict[str, Any] = {"tools": [{**PREVIEW, "type": kind}], "tool_choice": {"type": kind}}
    response = ask(caller, "Click.", **options, stream=stream)
    if stream:
        *_, last = response
        response = last.response
    (call,) = response.output
    assert (call.type, call.status, call.pending_safety_checks) == ("computer_call", "completed", [])
    acts = [call.action] if kind == "computer_use_preview" else call.actions
    (action,) = [act.model_dump(exclude_none=True) for act in acts]
    validate(action, read_tool(options["tools"][0])["function"]["parameters"])
    shot = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{encoded(60 + 2 * stream + len(kind))}"}
    output: dict[str, Any] = {"type": "computer_call_output", "call_id": call.call_id, "output": shot}
    after = ask(caller, [output], previous_response_id=response.id, tools=options["tools"], max_output_tokens=2)
    assert after.usage.input_tokens_details.cache_write_tokens > 0
    assert after.usage.input_tokens_details.cached_tokens >= response.usage.input_tokens
    items: list[Any] = [{"role": "user", "content": "Click."}, call, output]
    again = ask(caller, items, tools=options["tools"], max_output_tokens=2)
    assert again.usage.input_tokens == after.usage.input_tokens


def test_a_cut_call_is_no_json(caller: OpenAI) -> None:
    cut = ask(caller, WEATHER, max_output_tokens=30)
    (call,) = cut.output
    assert (cut.status, call.status) == ("incomplete", "incomplete")
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.arguments)
    question = [{"role": "user", "content": WEATHER}]
    assert ask(caller, [*question, call, *question], max_output_tokens=2).status == "incomplete"
