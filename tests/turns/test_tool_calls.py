"""Replies taken apart into content and calls, whole and while they are generated."""

import json
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.utils.json import parse_partial_json

from kamera_agent.turns.tool_calls import CLOSING, OPENING, CallPiece, ReplyReader, parse_reply

# Not among the usual beginnings, so nothing of it is sent before its end.
LONG_CALL = f'{" " * 500}{{"name": "{"a" * 2000}",{" " * 500}"arguments": {{"b": 1}}}}'


def read(pieces: Iterable[str], *, cut: bool = False) -> tuple[ReplyReader, list[str], dict[int, CallPiece]]:
    """The reader of a stream, the pieces of its content, and its calls put together from their pieces."""
    reader, content, calls = ReplyReader(), list[str](), dict[int, CallPiece]()
    for piece in chain(chain.from_iterable(map(reader.feed, pieces)), reader.finish(cut=cut)):
        if isinstance(piece, str):
            content.append(piece)
        elif piece.index in calls:
            assert piece.name is None
            before = calls[piece.index]
            calls[piece.index] = CallPiece(piece.index, before.name, before.arguments + piece.arguments)
        else:
            calls[piece.index] = piece
    return reader, content, calls


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
        (
            '<tool_call>{"name": "a", "arguments": {"b": "</tool_call>"}}</tool_call>on',
            "on",
            [("a", {"b": "</tool_call>"})],
            0,
        ),
        ('<tool_call>{"name": "a", "arguments": {"b": "\\"</tool_call>', "", [], 1),
        ('<tool_call>{"name": "a", "arguments": {"b": "x\ny"}}</tool_call>', "", [("a", {"b": "x\ny"})], 0),
        ('<tool_call>{"arguments": {"b": 1}, "name": "a"}</tool_call>', "", [("a", {"b": 1})], 0),
        ('<tool_call>{"name": "a", "arguments": {}, "name": "b"}</tool_call>', "", [], 1),
        ('<tool_call>{"name": "a", "arguments": {"b": 1}, "arguments": {}}</tool_call>', "", [], 1),
        ('<tool_call>{"name": "a", "arguments": {"b": 1}}}</tool_call>', "", [], 1),
        ('<tool_call>{"name": ""}</tool_call>', "", [], 1),
        ('<tool_call>click "here</tool_call> Then', "Then", [], 1),
        ('<tool_call>{"name": "a", "arguments": {"b": ' + "[" * 5000, "", [], 1),
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
    assert read(pieces)[1] == content
    assert parse_reply("".join(pieces)).content == "".join(content)


# Replies are made of text, blanks, calls, and what looks like the beginning of a call or of its end.
WORDS = st.sampled_from(["So:", "3 < 4", "<", "<tool_", "</tool_", "tool_call>", " ", "\n\n", OPENING, CLOSING, "{}"])


@settings(deadline=None)
@given(pieces=st.lists(st.lists(WORDS | st.text(f"{OPENING}{CLOSING} \n"), max_size=4).map("".join)), cut=st.booleans())
def test_a_stream_is_its_reply(pieces: list[str], cut: bool) -> None:
    parsed = parse_reply("".join(pieces), cut=cut)
    for cuts in (pieces, "".join(pieces)):
        reader, content, calls = read(cuts, cut=cut)
        assert reader.parsed == parsed
        assert "".join(content) == parsed.content
        assert {(call.name, call.text) for call in parsed.broken} <= {(c.name, c.arguments) for c in calls.values()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([OPENING, CLOSING, '"', "\\", "{", "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just(CLOSING), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    arguments=st.dictionaries(st.text(), JSON, max_size=3),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
    size=st.integers(1, 9),
    end=st.floats(0, 1),
)
def test_a_call_is_read_however_it_is_cut(
    arguments: Any, ascii: bool, indent: int | None, size: int, end: float
) -> None:
    """Whole, in pieces of any size; cut off anywhere, it is no call that a client could make of it."""
    call = json.dumps({"name": "write", "arguments": arguments}, ensure_ascii=ascii, indent=indent)
    text = f"So:{OPENING}{call}{CLOSING}"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    reader, content, calls = read(pieces)
    assert ("".join(content), reader.parsed) == ("So:", parse_reply(text))
    assert [(one.name, one.arguments) for one in reader.parsed.calls] == [("write", arguments)]
    assert calls[0].name == "write"
    assert json.loads(calls[0].arguments) == arguments

    length = len(f"So:{OPENING}") + int(end * (len(call) - 1))
    reader, _, calls = read([text[:length][start : start + size] for start in range(0, length, size)], cut=True)
    [broken] = reader.parsed.broken
    assert not reader.parsed.calls
    assert "max_tokens" in broken.error
    assert broken.name in (None, "write")
    assert broken.text == calls[0].arguments
    with suppress(ValueError):
        assert not isinstance(parse_partial_json(broken.text), dict)


@pytest.mark.parametrize("length", range(1, len(OPENING) + 1))
def test_a_forced_call_that_is_cut_in_its_marker_is_no_content(length: int) -> None:
    """A reply that may be anything else keeps it as content."""
    reader = ReplyReader(is_forced=True)
    [piece] = [*reader.feed(OPENING[:length]), *reader.finish(cut=True)]
    [broken] = reader.parsed.broken
    assert reader.parsed.content == ""
    assert (broken.name, broken.text) == (None, OPENING[:length])
    assert "max_tokens" in broken.error
    assert piece == CallPiece(0, None, OPENING[:length])
    assert parse_reply(OPENING[:length], cut=True).content == ("" if length == len(OPENING) else OPENING[:length])


@pytest.mark.parametrize("rest", ["", " ", ",", ', "arg', ', "arguments": ', ', "arguments": {'])
def test_a_name_is_known_from_its_last_quote_on(rest: str) -> None:
    [broken] = parse_reply(f'{OPENING}{{"name": "look"{rest}', cut=True).broken
    assert broken.name == "look"
    [broken] = parse_reply(f'{OPENING}{{"name": "look', cut=True).broken
    assert broken.name is None


def test_arguments_come_while_they_are_generated() -> None:
    reader = ReplyReader()
    text = '<tool_call>{"name": "write", "arguments": {"text": "so it is"}}</tool_call>'
    pieces = {number: [*reader.feed(char)] for number, char in enumerate(text)}
    assert pieces[text.index(", ") - 1] == [CallPiece(0, "write", "")]
    start = text.index('{"text"')
    assert [pieces[start + number] for number in range(20)] == [
        [CallPiece(0, None, char)] for char in text[start:][:20]
    ]


@given(words=st.lists(st.text(alphabet="ab", min_size=1), min_size=1), calls=st.lists(st.integers(), min_size=1))
def test_no_text_is_lost(words: list[str], calls: list[int]) -> None:
    """Words and calls in turn: the content has every word, and every call is read."""
    texts = [f'<tool_call>\n{{"name": "a", "arguments": {{"b": {number}}}}}\n</tool_call>' for number in calls]
    turns = zip_longest(words, texts, fillvalue="")
    parsed = parse_reply("".join(part for turn in turns for part in turn))
    assert parsed.content == "".join(words)
    assert [call.arguments["b"] for call in parsed.calls] == calls
