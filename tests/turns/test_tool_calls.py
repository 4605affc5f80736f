"""Replies taken apart into content and calls, whole and while they are generated."""

from typing import Any

import pytest

from kamera_agent.turns.tool_calls import certain, parse_reply


@pytest.mark.parametrize(
    ("text", "content", "calls", "num_broken"),
    [
        ("Done.", "Done.", [], 0),
        ('<tool_call>\n{"name": "a", "arguments": {"b": 1}}\n</tool_call>', "", [("a", {"b": 1})], 0),
        ('So: <tool_call>{"name": "a"}</tool_call>', "So:", [("a", {})], 0),
        ('<tool_call>{"name": "a", "arguments": {"b": 1}}\n</tool_', "", [("a", {"b": 1})], 0),
        ('<tool_call>{"name": "a", "arguments": {"b": 1</tool_call>', "", [], 1),
        ('<tool_call>{"name": "a", "arguments": [1]}</tool_call>', "", [], 1),
        ("<tool_call>[1]</tool_call>", "", [], 1),
        ("<tool_call>", "", [], 1),
    ],
)
def test_replies_taken_apart(text: str, content: str, calls: list[Any], num_broken: int) -> None:
    parsed = parse_reply(text)
    assert parsed.content == content
    assert [(call.name, call.arguments) for call in parsed.calls] == calls
    assert len(parsed.broken) == num_broken
    assert all(call.error for call in parsed.broken)


def test_what_may_be_a_call_is_held_back() -> None:
    assert certain("So: <tool_") == "So: "
    assert certain("a < b") == "a < b"
    assert certain("So: <tool_call>{") == "So: "
