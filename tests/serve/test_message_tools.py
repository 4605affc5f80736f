"""Tools through Anthropic's own client, called by a model that has learned it; and tools of Anthropic's own types."""

from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError
from jsonschema import validate
from serving import ABOUT, ARGUMENTS, PARAMETERS, WEATHER, encoded, text, user

from kamera_agent.serve.messages.tools import read_tool


def tool(name: str) -> Any:
    return {"name": name, "description": ABOUT, "input_schema": PARAMETERS}


TOOLS = [tool("get_weather")]
COMPUTER = {"type": "computer_20250124", "name": "computer", "display_width_px": 640, "display_height_px": 480}


def ask(client: Anthropic, messages: list[Any], **options: Any) -> Any:
    (model,) = client.models.list()
    asked = {"model": model.id, "messages": messages, "tools": TOOLS, "max_tokens": 120}
    return client.messages.create(**asked | options)


def result(call: Any, *content: Any) -> dict[str, Any]:
    return user({"type": "tool_result", "tool_use_id": call.id, "content": [*content]})


def test_a_call_its_result_and_the_answer(anthropic_caller: Anthropic) -> None:
    messages: list[Any] = [user(text(WEATHER))]
    first = ask(anthropic_caller, messages)
    (call,) = first.content
    assert (call.type, call.name, call.input, first.stop_reason) == ("tool_use", "get_weather", ARGUMENTS, "tool_use")
    messages += [{"role": "assistant", "content": first.content}, result(call, text("Rain in San Francisco, CA."))]
    answer = ask(anthropic_caller, messages)
    assert "Rain in San Francisco, CA" in answer.content[0].text
    # All of the first prompt and the call, which the chat template would write with other spaces.
    assert answer.usage.cache_read_input_tokens >= first.usage.input_tokens + first.usage.cache_read_input_tokens


def test_a_result_with_a_screenshot(anthropic_caller: Anthropic) -> None:
    messages: list[Any] = [user(text(WEATHER))]
    (call,) = ask(anthropic_caller, messages).content
    source = {"type": "base64", "media_type": "image/png", "data": encoded(7)}
    seen = result(call, text("Rain."), {"type": "image", "source": source})
    seen["content"].append(text("And now?"))
    messages += [{"role": "assistant", "content": [call]}, seen]
    answer = ask(anthropic_caller, messages, max_tokens=4)
    assert answer.usage.cache_creation_input_tokens > 0


def test_a_streamed_call(anthropic_caller: Anthropic) -> None:
    (model,) = anthropic_caller.models.list()
    asked: dict[str, Any] = {"model": model.id, "messages": [user(text(WEATHER))], "tools": TOOLS, "max_tokens": 120}
    with anthropic_caller.messages.stream(**asked) as stream:
        names = [event.type for event in stream]
        final = stream.get_final_message()
    (call,) = final.content
    assert call.type == "tool_use"
    assert (call.name, call.input, final.stop_reason) == ("get_weather", ARGUMENTS, "tool_use")
    assert names[0] == "message_start"
    assert [name for name in names if name.startswith("content_block")] == [
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]


def test_tool_choice(anthropic_caller: Anthropic) -> None:
    both = [*TOOLS, tool("call_home")]
    for choice, names in (
        ({"type": "any"}, {"get_weather", "call_home"}),
        ({"type": "tool", "name": "call_home"}, {"call_home"}),
    ):
        (call,) = ask(anthropic_caller, [user(text("Hello."))], tools=both, tool_choice=choice).content
        assert call.name in names
    silent = ask(anthropic_caller, [user(text(WEATHER))], tools=both, tool_choice={"type": "none"})
    assert [block.type for block in silent.content] == ["text"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("most", [14, 30])
def test_a_call_that_is_cut_off_is_a_text(anthropic_caller: Anthropic, stream: bool, most: int) -> None:
    """A client may take any tool_use block for a call. The text can be sent back."""
    (model,) = anthropic_caller.models.list()
    messages: list[Any] = [user(text(WEATHER))]
    asked: dict[str, Any] = {"model": model.id, "messages": messages, "tools": TOOLS, "max_tokens": most}
    if stream:
        with anthropic_caller.messages.stream(**asked) as events:
            cut: Any = events.get_final_message()
    else:
        cut = anthropic_caller.messages.create(**asked)
    assert cut.stop_reason == "max_tokens"
    assert [block.type for block in cut.content] == ["text"]
    assert cut.content[0].text
    history = [*messages, {"role": "assistant", "content": cut.content}, *messages]
    assert ask(anthropic_caller, history, max_tokens=2).stop_reason == "max_tokens"


def test_a_computer_gets_actions_within_its_display(anthropic_caller: Anthropic) -> None:
    """The model has not learned the tool; decoding holds it to the schema."""
    choice = {"type": "tool", "name": "computer"}
    (call,) = ask(
        anthropic_caller, [user(text("Click."))], tools=[COMPUTER], tool_choice=choice, max_tokens=300
    ).content
    schema = read_tool(COMPUTER)["function"]["parameters"]
    validate(call.input, schema)
    assert [part["maximum"] for part in schema["properties"]["coordinate"]["prefixItems"]] == [639, 479]
    assert "zoom" not in schema["properties"]["action"]["enum"]
    newer = read_tool({**COMPUTER, "type": "computer_20251124"})["function"]["parameters"]
    validate({"action": "zoom", "region": [0, 0, 5, 5]}, newer)


@pytest.mark.parametrize(
    ("given", "name", "valid"),
    [
        ({"type": "bash_20250124", "name": "bash"}, "bash", {"command": "ls"}),
        (
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            "str_replace_based_edit_tool",
            {"command": "view", "path": "/a"},
        ),
        ({**tool("a"), "type": "custom", "cache_control": {"type": "ephemeral"}}, "a", ARGUMENTS),
    ],
)
def test_other_tools_of_anthropic(given: dict[str, Any], name: str, valid: dict[str, Any]) -> None:
    function = read_tool(given)["function"]
    assert function["name"] == name
    validate(valid, function["parameters"])


@pytest.mark.parametrize(
    "given",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "computer_20990101", "name": "computer", "display_width_px": 5, "display_height_px": 5},
        {"type": "computer_20250124", "name": "computer"},
        {"name": "a"},
        {},
    ],
)
def test_tools_that_cannot_be_served(anthropic: Anthropic, given: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be served"):
        ask(anthropic, [user(text("Hello."))], tools=[given])
