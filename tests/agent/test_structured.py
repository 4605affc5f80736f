"""Structured output and JSON: replies against what pydantic makes of them."""

import asyncio
import json
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any, Literal

import pytest
from caller.weights import open_caller
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from kamera_agent import InputError, Kamera
from kamera_agent.agent import ChatKamera

METHODS = ("function_calling", "json_schema", "json_mode")
QUESTION = "Find a room. Answer in JSON."


class Room(BaseModel):
    """A room, with what neither model was ever asked for."""

    model_config = ConfigDict(extra="forbid")

    floor: int = Field(ge=-2, le=40)
    wing: Literal["north", "south"]
    free: bool
    codes: list[str] = Field(min_length=1, max_length=3)
    near: "Place | None"


class Place(BaseModel):
    street: str
    number: int


class Long(BaseModel):
    """Pydantic would take any beginning of the list; only the schema demands more."""

    floors: list[int] = Field(json_schema_extra={"minItems": 40})


class RoomDict(TypedDict):
    """A room."""

    floor: int
    free: bool
    codes: list[str]


class Shelf(BaseModel):
    """Something that holds itself."""

    label: Literal["a", "b"]
    below: "Shelf | None"


AS_JSON = Room.model_json_schema()
SCHEMAS = {
    "pydantic": (Room, Room),
    "TypedDict": (RoomDict, RoomDict),
    "JSON schema": (AS_JSON, Room),
    "JSON schema, no title": ({name: part for name, part in AS_JSON.items() if name != "title"}, Room),
    "a tool of OpenAI's": (
        {"type": "function", "function": {"name": "found", "description": "A room.", "parameters": AS_JSON}},
        Room,
    ),
}


@pytest.fixture(scope="module")
def caller() -> Iterator[Kamera]:
    with open_caller() as kamera:
        yield kamera


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("schema", "reference"), SCHEMAS.values(), ids=SCHEMAS)
def test_whatever_is_said_is_of_the_schema(kamera: Kamera, schema: Any, reference: Any, method: Any) -> None:
    """Sampled at a temperature at which the model would say anything."""
    for seed in range(3):
        model = ChatKamera(kamera=kamera, max_tokens=400, max_string=6, temperature=3.0, seed=seed)
        found = model.with_structured_output(schema, method=method).invoke(QUESTION)
        if schema is Room:
            assert type(found) is Room
            found = found.model_dump()
        TypeAdapter(reference).validate_python(found, strict=True)


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_a_schema_that_holds_itself(kamera: Kamera, method: Any) -> None:
    depths = set()
    for seed in range(6):
        model = ChatKamera(kamera=kamera, max_tokens=400, temperature=3.0, seed=seed)
        shelf = model.with_structured_output(Shelf, method=method).invoke(QUESTION)
        assert isinstance(shelf, Shelf)
        depths.add(shelf.model_dump_json().count("label"))
    assert len(depths) > 1


@pytest.mark.parametrize("method", METHODS)
def test_raw_replies_come_along(kamera: Kamera, method: Any) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=400, max_string=6)
    told = model.with_structured_output(Room, method=method, include_raw=True).invoke(QUESTION)
    raw = told["raw"]
    said = raw.tool_calls[0]["args"] if method == "function_calling" else json.loads(raw.text)
    assert told == {"raw": raw, "parsed": Room.model_validate(said), "parsing_error": None}


@pytest.mark.parametrize("method", METHODS)
def test_options_of_a_call_count_with_raw_replies(kamera: Kamera, method: Any) -> None:
    """Invoked, in a batch and streamed, at once and asynchronously: max_tokens cuts the reply."""
    structured = ChatKamera(kamera=kamera).with_structured_output(Room, method=method, include_raw=True)
    options: dict[str, Any] = {"max_tokens": 4, "conversation": f"cut, {method}"}

    async def astream() -> list[Any]:
        return [piece async for piece in structured.astream(QUESTION, **options)]

    replies = [
        structured.invoke(QUESTION, **options),
        asyncio.run(structured.ainvoke(QUESTION, **options)),
        *structured.batch([QUESTION], **options),
        reduce(add, structured.stream(QUESTION, **options)),
        reduce(add, asyncio.run(astream())),
    ]
    for reply in replies:
        assert reply["raw"].usage_metadata["output_tokens"] == 4
        assert "max_tokens" in str(reply["parsing_error"])


@pytest.mark.parametrize("schema", [Long, Long.model_json_schema()], ids=["pydantic", "JSON schema"])
@pytest.mark.parametrize("max_tokens", [4, 40])
@pytest.mark.parametrize("method", METHODS)
def test_a_reply_that_is_cut_is_no_whole(kamera: Kamera, method: Any, max_tokens: int, schema: Any) -> None:
    """Invoked and streamed, at once and asynchronously: the same error, and never an object that is made up."""
    model = ChatKamera(kamera=kamera, max_tokens=max_tokens)
    raw_too = model.with_structured_output(schema, method=method, include_raw=True)
    streamed: dict[str, Any] = {}
    for piece in raw_too.stream(QUESTION):
        streamed |= {name: part for name, part in piece.items() if name != "raw"}
    for reply in (raw_too.invoke(QUESTION), asyncio.run(raw_too.ainvoke(QUESTION)), streamed):
        assert reply["parsed"] is None
        assert isinstance(reply["parsing_error"], OutputParserException)
        assert "max_tokens" in str(reply["parsing_error"])
    structured = model.with_structured_output(schema, method=method)

    async def astream() -> None:
        async for _ in structured.astream(QUESTION):
            pass

    for ask in (
        lambda: structured.invoke(QUESTION),
        lambda: [*structured.stream(QUESTION)],
        lambda: asyncio.run(astream()),
    ):
        with pytest.raises(OutputParserException, match="max_tokens"):
            ask()


def test_a_number_that_is_cut_is_no_number(kamera: Kamera) -> None:
    schema = {"title": "count", "type": "integer", "minimum": 100_000, "maximum": 999_999}
    whole = ChatKamera(kamera=kamera, max_tokens=20).with_structured_output(schema, method="json_schema")
    assert 100_000 <= whole.invoke(QUESTION) <= 999_999
    cut = ChatKamera(kamera=kamera, max_tokens=1).with_structured_output(schema, method="json_schema")
    with pytest.raises(OutputParserException, match="max_tokens"):
        cut.invoke(QUESTION)


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_streams_grow_to_what_is_said_at_once(kamera: Kamera, method: Any) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=400, max_string=6).with_structured_output(AS_JSON, method=method)
    whole = model.invoke(QUESTION)
    pieces = list(model.stream(QUESTION))
    assert len(pieces) > 2
    assert pieces[-1] == asyncio.run(model.ainvoke(QUESTION)) == whole


def test_json_mode_without_a_schema(caller: Kamera) -> None:
    """Both doors of it: LangChain's, and OpenAI's response_format."""
    model = ChatKamera(kamera=caller, max_tokens=400, max_string=6)
    for question in ("Hello", "Tell me a joke about cats."):
        told = model.with_structured_output(method="json_mode", include_raw=True).invoke(question, conversation="mode")
        assert isinstance(json.loads(told["raw"].text), dict)
        assert told["parsed"] == json.loads(told["raw"].text)
        said = model.invoke(question, response_format={"type": "json_object"}, conversation="format")
        assert said.text == told["raw"].text
        plain = model.invoke(question, conversation="plain")
        assert model.invoke(question, response_format={"type": "text"}, conversation="text").text == plain.text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"schema": Room, "method": "yaml"}, "method is 'yaml'; use one of function_calling, json_schema, json_mode"),
        ({"schema": Room, "method": "json_mode", "heat": 1}, "has no option 'heat'"),
        ({"method": "json_schema"}, "method='json_schema' needs a schema"),
        ({}, "method='function_calling' needs a schema"),
    ],
)
def test_bad_input(kamera: Kamera, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ChatKamera(kamera=kamera).with_structured_output(**given)


class Folder(BaseModel):
    label: Literal["a", "b"]
    inner: "Folder | None"


CIRCLE = {"type": "object", "properties": {"r": {"const": 1}}, "required": ["r"]}


@pytest.mark.parametrize(
    "schema",
    [{"title": "Shape", "anyOf": [CIRCLE]}, {"title": "Shape", "$ref": "#/$defs/d", "$defs": {"d": CIRCLE}}],
    ids=["anyOf", "reference"],
)
def test_a_called_schema_without_properties_is_kept(kamera: Kamera, schema: dict[str, Any]) -> None:
    """LangChain's own conversion of a tool leaves nothing of it."""
    model = ChatKamera(kamera=kamera, max_tokens=200)
    assert model.with_structured_output(schema).invoke("Where is anna?") == {"r": 1}


def test_a_called_class_may_hold_itself(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=400)
    [call] = model.bind_tools([Folder], tool_choice="any").invoke("Where is anna?").tool_calls
    assert Folder.model_validate(call["args"]).label in ("a", "b")
