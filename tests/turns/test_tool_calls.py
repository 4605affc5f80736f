"""Replies taken apart into content and calls, whole and while they are generated."""

from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamera_agent.turns.tool_calls import CLOSING, OPENING, parse_reply, stream_content


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


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        (["So: <tool_"], ["So:", " <tool_"]),
        (["a < b"], ["a < b"]),
        (["So: ", "<tool_call>{"], ["So:"]),
        (["So:\n", "on"], ["So:", "\non"]),
        (["\n<tool_call>{}</tool_call>\n", "Then <tool_call>{}", "</tool_call>on."], ["Then", " on."]),
        (["\nSo <tool_call>{}</tool_call>", "3 <"], ["\nSo", " 3", " <"]),
    ],
)
def test_what_may_be_a_call_is_held_back(pieces: list[str], content: list[str]) -> None:
    assert [*stream_content(pieces)] == content
    assert parse_reply("".join(pieces)).content == "".join(content)


# Replies are made of text, blanks, calls, and what looks like the beginning of a call or of its end.
WORDS = st.sampled_from(["So:", "3 < 4", "<", "<tool_", "</tool_", "tool_call>", " ", "\n\n", OPENING, CLOSING, "{}"])


@settings(deadline=None)
@given(pieces=st.lists(st.lists(WORDS | st.text(f"{OPENING}{CLOSING} \n"), max_size=4).map("".join)))
def test_a_stream_is_the_content(pieces: list[str]) -> None:
    content = parse_reply("".join(pieces)).content
    assert "".join(stream_content(pieces)) == content
    assert "".join(stream_content("".join(pieces))) == content


@settings(deadline=None)
@given(words=st.lists(st.text(alphabet="ab", min_size=1), min_size=1), calls=st.lists(st.integers(), min_size=1))
def test_no_text_is_lost(words: list[str], calls: list[int]) -> None:
    """Words and calls in turn: the content has every word, and every call is read."""
    texts = [f'<tool_call>\n{{"name": "a", "arguments": {{"b": {number}}}}}\n</tool_call>' for number in calls]
    turns = zip_longest(words, texts, fillvalue="")
    parsed = parse_reply("".join(part for turn in turns for part in turn))
    assert parsed.content == "".join(words)
    assert [call.arguments["b"] for call in parsed.calls] == calls
