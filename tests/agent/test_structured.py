"""Structured output and JSON: replies against what pydantic makes of them."""

import asyncio
import json
from collections.abc import Iterator
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


def test_a_reply_that_is_cut_is_told(kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=4).with_structured_output(Room, method="json_mode", include_raw=True)
    told = model.invoke(QUESTION)
    assert told["raw"].response_metadata["finish_reason"] == "length"
    assert told["parsed"] is None
    assert isinstance(told["parsing_error"], OutputParserException)


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
