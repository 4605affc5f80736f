"""Rewritten schemas: whatever can be generated follows the original, by a validator of JSON Schema."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import Draft202012Validator
from llguidance import LLTokenizer

from kamera_agent import InputError
from kamera_agent.turns.effort import MAX_PARTS, Effort
from kamera_agent.turns.grammar import Grammars, Matcher
from kamera_agent.turns.references import References
from kamera_agent.turns.schemas import Form, Rewriter

BYTES = LLTokenizer("byte")
INTEGER, STRING = {"type": "integer"}, {"type": "string"}


def grammars(max_string: int | None) -> Grammars:
    """Grammars over a tokenizer of single bytes: every text can be generated in one way only."""
    made = Grammars(None, max_string)
    made._tokenizer = BYTES
    return made


def allowed(matcher: Matcher) -> list[int]:
    return torch.isfinite(matcher.mask(torch.zeros(BYTES.vocab_size))).nonzero().flatten().tolist()


def admits(schema: Any, text: str, max_string: int | None = None) -> bool:
    matcher = grammars(max_string).json(schema)
    for token in [*text.encode(), BYTES.eos_token]:
        if token not in allowed(matcher):
            return False
        matcher.accept(token)
    return True


def generate(schema: Any, seed: int, max_string: int | None) -> str | None:
    """A random reply; None where it does not end within 300 bytes."""
    draw, matcher, text = random.Random(seed), grammars(max_string).json(schema), bytearray()
    while len(text) < 300:
        tokens = allowed(matcher)
        assert tokens, (schema, bytes(text))
        closing = [token for token in tokens if token < 256 and chr(token) in '"]}:,']
        often = closing and draw.random() < (0.4 if len(text) < 100 else 0.9)
        token = (
            BYTES.eos_token
            if BYTES.eos_token in tokens and draw.random() < 0.7
            else draw.choice(closing if often else tokens)
        )
        if token == BYTES.eos_token:
            return text.decode()
        matcher.accept(token)
        text.append(token)
    return None


NAMES = st.sampled_from(["a", "b", "c", "properties", "items", "é"])
LEAVES = st.sampled_from(
    [
        {},
        True,
        False,
        *({"type": kind} for kind in ("integer", "number", "string", "boolean", "null", "array", "object")),
        {"type": ["integer", "null"]},
        {"type": ["string", "number"]},
        {"type": "string", "minLength": 12},
        {"type": "string", "minLength": 2, "maxLength": 3},
        {"type": "string", "pattern": "^x[a-c]*$"},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "a-format-of-ours"},
        {"type": "integer", "minimum": 5},
        {"type": "integer", "minimum": 2**54},
        {"type": "integer", "multipleOf": 7},
        {"type": "number", "minimum": 0},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 0.25},
        {"type": "number", "minimum": -1, "exclusiveMaximum": 0},
        {"minimum": 3},
        {"enum": [1, "a", None, {"properties": 1}, {"type": "string"}]},
        {"const": {"additionalProperties": {"type": "string"}}},
        {"type": "integer", "enum": [1.0, 2]},
        {"type": "string", "default": {"properties": {}}, "examples": [{"properties": {}}]},
        {"$ref": "#/$defs/d"},
        {"$ref": "#/$defs/e"},
    ]
)


def grow(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects, arrays, and schemas that apply together."""
    objects = st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(NAMES, parts, max_size=3)},
        optional={
            "required": st.lists(NAMES, unique=True, max_size=2),
            "additionalProperties": parts | st.just(False),
            "patternProperties": parts.map(lambda part: {"^z": part}),
            "minProperties": st.sampled_from([1, 3]),
            "maxProperties": st.just(2),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={
            "items": parts,
            "prefixItems": st.lists(parts, min_size=1, max_size=2),
            "minItems": st.just(2),
            "maxItems": st.just(3),
        },
    )
    groups = st.tuples(st.sampled_from(["allOf", "anyOf", "oneOf"]), st.lists(parts, min_size=1, max_size=2)).map(
        lambda group: dict([group])
    )
    beside = st.tuples(objects | parts, groups).map(
        lambda both: (both[0] if isinstance(both[0], dict) else {}) | both[1]
    )
    return objects | arrays | groups | beside


PARTS = st.recursive(LEAVES, grow, max_leaves=6)
SCHEMAS = st.tuples(PARTS, PARTS, PARTS).map(
    lambda parts: (
        (parts[0] if isinstance(parts[0], dict) else {"allOf": [parts[0]]}) | {"$defs": {"d": parts[1], "e": parts[2]}}
    )
)


@settings(deadline=None, max_examples=150)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32), max_string=st.sampled_from([None, 8]))
def test_whatever_is_generated_follows_the_original(schema: Any, seed: int, max_string: int | None) -> None:
    for number in range(3):
        try:
            text = generate(schema, seed + number, max_string)
        except InputError:
            return
        try:
            if text is not None:
                Draft202012Validator(schema).validate(json.loads(text))
        except RecursionError:  # The validator follows a reference that refers to itself for ever.
            return


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"allOf": [an_object(a=INTEGER), an_object(b=INTEGER)]}, '{"a":1,"b":2}'),
        (an_object(kind=INTEGER) | {"anyOf": [an_object(x=INTEGER), an_object(y=INTEGER)]}, '{"kind":1,"x":2}'),
        (an_object(kind=INTEGER) | {"anyOf": [an_object(x=INTEGER), an_object(y=INTEGER)]}, '{"kind":1,"y":2}'),
        (an_object(n=INTEGER) | {"additionalProperties": STRING}, '{"n":1}'),
        (an_object(n=INTEGER) | {"additionalProperties": STRING}, '{"n":1,"more":"a"}'),
        (an_object(n=INTEGER) | {"additionalProperties": {"type": "object"}}, '{"n":1,"more":{"a":[{}]}}'),
        (an_object(a=STRING | {"minLength": 12}), '{"a":"123456789012"}'),
        (an_object(a={"enum": [{"properties": 1}]}), '{"a":{"properties":1}}'),
        (
            an_object(a={"const": {"type": "integer", "additionalProperties": {}}}),
            '{"a":{"type":"integer","additionalProperties":{}}}',
        ),
        (an_object(properties=INTEGER, additionalProperties=INTEGER), '{"properties":1,"additionalProperties":2}'),
        (an_object(a={"type": ["integer", "null"]}), '{"a":null}'),
        (an_object(a={"type": ["integer", "null"]}), '{"a":12}'),
        ({"type": "object", "properties": {"a": INTEGER}, "required": ["b"]}, '{"b":"x"}'),
        ({"allOf": [STRING, {"minLength": 12}]}, '"123456789012"'),
        ({"allOf": [{"$ref": "#/$defs/a"}, {"minimum": 2**54}], "$defs": {"a": INTEGER}}, str(2**61)),
        ({"type": "integer", "minimum": 2**54}, str(2**61)),
        (an_object(b=INTEGER, a=INTEGER) | {"allOf": [an_object(d=INTEGER, c=INTEGER)]}, '{"b":1,"a":2,"d":3,"c":4}'),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-8}, "0.000000005"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0.25"),
        ({"type": "string", "format": "a-format-of-ours"}, '"a"'),
        ({"type": "object", "patternProperties": {"^z": INTEGER}, "required": ["z"]}, '{"z":1}'),
        ({"type": "object", "minProperties": 1}, '{"a":null}'),
        (
            {
                "$ref": "#/definitions/a~1b",
                "definitions": {
                    "a/b": an_object(c={"$ref": "#/definitions/a~1b/properties/d"})
                    | {"properties": {"c": INTEGER, "d": INTEGER}}
                },
            },
            '{"c":1}',
        ),
        ({"$id": "https://example.org/s", "$ref": "https://example.org/s#/$defs/a", "$defs": {"a": INTEGER}}, "1"),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "array",
                "items": [INTEGER, STRING],
                "additionalItems": False,
            },
            '[1,"a"]',
        ),
    ],
)
def test_bounds_leave_what_the_schema_means(schema: Any, text: str) -> None:
    for max_string in (None, 8):
        assert admits(schema, text, max_string)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": ["integer", "null"]}, str(2**60)),
        ({"type": "integer", "minimum": 0}, str(2**60)),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0.12345678"),
        ({"type": ["string", "null"]}, '"123456789"'),
        ({"title": "anything"}, '"123456789"'),
        ({"type": "array"}, '["123456789"]'),
        ({"type": "object"}, '{"123456789":1}'),
        ({"type": "object"}, '{"a":["123456789"]}'),
        (an_object(a=INTEGER), '{"a":1,"b":2}'),
        (an_object(a=True), '{"a":"123456789"}'),
        (an_object(a=INTEGER) | {"additionalProperties": STRING}, '{"a":1,"b":"123456789"}'),
        (an_object(a=INTEGER) | {"additionalProperties": STRING}, '{"a":1,"123456789":"b"}'),
        (an_object(kind=INTEGER) | {"anyOf": [an_object(x=INTEGER), an_object(y=INTEGER)]}, '{"kind":1,"x":2,"y":3}'),
        (an_object(kind=INTEGER) | {"anyOf": [an_object(x=STRING)]}, '{"kind":1,"x":"123456789"}'),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": STRING}}, '"123456789"'),
        ({"oneOf": [STRING, {"type": "null"}]}, '"123456789"'),
    ],
)
def test_bounds_end_what_a_model_may_not(schema: Any, text: str) -> None:
    assert Draft202012Validator(schema).is_valid(json.loads(text))
    assert not admits(schema, text, max_string=8)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"enum": [{"properties": 1}]}, '{"properties":1,"additionalProperties":false}'),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.25}, "0"),
        ({"type": "number", "minimum": -0.25, "exclusiveMaximum": 0}, "-0"),
        ({"type": "number", "exclusiveMinimum": 10, "maximum": 10.25}, "10"),
        ({"type": "object", "properties": {"a": INTEGER}, "additionalProperties": STRING}, r'{"\u0061":"x"}'),
        ({"type": "object", "patternProperties": {"^a": INTEGER}}, r'{"\u0061":"x"}'),
        (
            {"allOf": [{"properties": {"a": INTEGER}, "additionalProperties": STRING}, {"type": "object"}]},
            r'{"\u0061":"x"}',
        ),
        ({"allOf": [an_object(a=INTEGER), an_object(b=INTEGER)]}, '{"a":1}'),
    ],
)
def test_what_the_schema_forbids_is_not_generated(schema: Any, text: str) -> None:
    assert not Draft202012Validator(schema).is_valid(json.loads(text))
    for max_string in (None, 8):
        assert not admits(schema, text, max_string)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": INTEGER}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"oneOf": [INTEGER, {"type": "number"}]}, "oneOf"),
        ({"oneOf": [INTEGER, {"type": "integer", "minimum": 2**54}]}, "oneOf"),
        ({"$ref": "https://example.org/other"}, "other"),
        ({"$ref": "#/$defs/a"}, "a"),
        ({"$ref": "#/$defs/a", "$defs": {"a": an_object(a={"$ref": "#/$defs/a"})}}, "requires itself"),
        (an_object(a={"type": "array", "items": {"$ref": "#"}, "minItems": 1}), "requires itself"),
        ({"type": "object", "minProperties": 2}, "minProperties is 2"),
        ({"properties": {"a": {"$id": "https://example.org/s", "type": "integer"}}}, r"\$id"),
        ({"properties": []}, "properties"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum"),
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        grammars(None).json(schema)
    tool = {"type": "function", "function": {"name": "act", "parameters": schema}}
    with pytest.raises(InputError, match=says):
        grammars(8).calls([tool])


def test_a_long_name_beside_others_is_refused() -> None:
    with pytest.raises(InputError, match="5,000 characters"):
        grammars(None).json({"type": "object", "properties": {"a" * 5000: INTEGER}, "additionalProperties": STRING})


def chain(num_levels: int, level: Callable[[int, Any], Any], end: Any = INTEGER) -> dict[str, Any]:
    """Definitions of which each refers to the next one. level: makes one of its number and its reference."""
    levels = {f"d{number}": level(number, {"$ref": f"#/$defs/d{number + 1}"}) for number in range(num_levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**levels, f"d{num_levels}": end}}


class Counted(Effort):
    """An effort that tells how much of it was spent."""

    @property
    def num_spent(self) -> int:
        return MAX_PARTS - self._num_left


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_what_definitions_share_is_read_once(keyword: str) -> None:
    """There are 2**40 ways to the last definition, and 40 definitions."""
    schema = chain(40, lambda _, further: {keyword: [further, further]}, an_object(a=INTEGER))
    assert admits(schema, '{"a":1}', max_string=8)
    assert not admits(schema, '{"a":"b"}', max_string=8)


def test_finite_values_are_looked_for_in_few_rounds() -> None:
    spent = []
    for num_levels in (100, 1000):
        effort = Counted()
        References(chain(num_levels, lambda _, further: an_object(a=further)), effort).check()
        spent.append(effort.num_spent)
    assert spent[1] <= 11 * spent[0]


@pytest.mark.parametrize("form", Form)
def test_a_schema_that_grows_with_every_level_is_refused(form: Form) -> None:
    """Each way to a definition has other names beside it, so each one takes a copy of its own."""

    def ways(number: int, further: Any) -> Any:
        return {"anyOf": [{"allOf": [{"properties": {f"{letter}{number}": INTEGER}}, further]} for letter in "ab"]}

    few, many = (chain(num_levels, ways, an_object(z=INTEGER)) for num_levels in (3, 30))
    Draft202012Validator.check_schema(Rewriter(few, 8, Effort()).rewrite(form))
    with pytest.raises(InputError, match="more than 1,000,000 parts"):
        Rewriter(many, 8, Effort()).rewrite(form)


def test_the_schemas_of_all_tools_share_one_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    def call_of(num_tools: int) -> None:
        parameters = an_object(**{f"name{number}": INTEGER for number in range(100)})
        tools = [{"function": {"name": f"act{number}", "parameters": parameters}} for number in range(num_tools)]
        grammars(8).calls(tools)

    monkeypatch.setattr("kamera_agent.turns.effort.MAX_PARTS", 10_000)
    call_of(1)
    with pytest.raises(InputError, match="more than 10,000 parts"):
        call_of(20)
