"""Responses through OpenAI's own client."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from huggingface import Conversation
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel
from serving import QUESTION, TIMEOUT, client_of, encoded, screen, serving

from kamera_agent import Kamera
from kamera_agent.serve.keys import Keys

ADA, BOB = "ada-0123456789abc", "bob-0123456789abc"


def seen(seed: int) -> dict[str, Any]:
    """The part of a message that shows a screen."""
    return {"type": "input_image", "image_url": f"data:image/png;base64,{encoded(seed)}", "detail": "auto"}


def said(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def test_the_answers_are_those_of_hugging_face(exact: Kamera) -> None:
    """Three questions about three screens, each of which goes on from the response before it, with instructions."""
    family, system = exact.family, "You see screens."
    reference = Conversation(family.model, family.processors.whole)
    reference.say("system", system)
    previous = None
    with serving(exact) as url, client_of(url) as client:
        for seed in (1, 2, 3):
            response = client.responses.create(
                model="pocket",
                instructions=system,
                input=[user(seen(seed), said(QUESTION))],  # type: ignore[list-item]
                previous_response_id=previous,
                max_output_tokens=8,
            )
            reference.say("user", screen(seed), QUESTION)
            expected = reference.generate(8)
            assert (response.output_text, response.status) == (expected, "completed")
            assert response.model_dump()["kamera"]["exact"]
            reference.say("assistant", expected)
            previous = response.id
    assert response.usage
    assert response.usage.input_tokens_details.cached_tokens > 120


def test_whole_inputs_go_on_from_each_other_as_well(client: OpenAI) -> None:
    """The items of a response come back in the input. A text is a message of the user."""
    first = client.responses.create(model="pocket", input=QUESTION, max_output_tokens=4)
    items: list[Any] = [{"role": "user", "content": QUESTION}, *first.output, user(seen(1), said("And now?"))]
    whole = client.responses.create(model="pocket", input=items, max_output_tokens=4)
    after = client.responses.create(
        model="pocket", input=items[-1:], previous_response_id=first.id, max_output_tokens=4
    )
    assert whole.output_text == after.output_text
    assert first.usage
    assert whole.usage
    assert after.usage
    assert whole.usage.input_tokens == after.usage.input_tokens
    assert whole.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens


def test_the_events_of_a_stream(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pocket", "input": [user(seen(1), said(QUESTION))], "max_output_tokens": 8}
    whole = client.responses.create(**asked)
    events = [*client.responses.create(**asked, stream=True)]
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert {*names[4:-4]} == {"output_text.delta"}
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text
    with client.responses.stream(**asked) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_text == whole.output_text == events[-1].response.output_text
    assert final.usage
    assert whole.usage
    assert final.usage.total_tokens == whole.usage.total_tokens


async def test_the_asynchronous_client(url: str, client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pocket", "input": [user(seen(2), said(QUESTION))], "max_output_tokens": 8}
    expected = client.responses.create(**asked).output_text
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT) as asynchronous:
        assert (await asynchronous.responses.create(**asked)).output_text == expected
        stream = await asynchronous.responses.create(**asked, stream=True)
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == expected


class Place(BaseModel):
    room: Literal["attic", "cellar"]
    floors: list[int]


def test_structured_output(client: OpenAI) -> None:
    parsed = client.responses.parse(model="pocket", input="Where?", text_format=Place, max_output_tokens=60)
    assert isinstance(parsed.output_parsed, Place)
    loose = client.responses.create(
        model="pocket", input="Where?", text={"format": {"type": "json_object"}}, max_output_tokens=60
    )
    assert loose.output_text.startswith("{")
    cut = client.responses.create(
        model="pocket", input="Where?", text={"format": {"type": "json_object"}}, max_output_tokens=1
    )
    assert cut.status == "incomplete"
    assert cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.output[0].status == "incomplete"  # type: ignore[union-attr]


def test_a_previous_response_that_is_not_kept(tmp_path: Path) -> None:
    """It was asked not to be stored, belongs to another key, never was, or is too long ago."""
    (tmp_path / "keys").write_text(f"{ADA}\n{BOB}\n")
    with (
        Kamera.pocket() as kamera,
        serving(kamera, keys=Keys.read(tmp_path / "keys")) as url,
        client_of(url, ADA) as ada,
        client_of(url, BOB) as bob,
    ):
        asked: dict[str, Any] = {"model": "pocket", "input": "Hi.", "max_output_tokens": 1}
        first = ada.responses.create(**asked)
        secret = ada.responses.create(**asked, store=False)
        assert (first.store, secret.store) == (True, False)  # type: ignore[attr-defined]
        assert ada.responses.create(**asked, previous_response_id=first.id).previous_response_id == first.id
        for client, unknown in ((bob, first.id), (ada, secret.id), (ada, "resp_0")):
            for stream in (False, True):
                with pytest.raises(BadRequestError) as caught:
                    client.responses.create(**asked, previous_response_id=unknown, stream=stream)
                assert (caught.value.code, caught.value.param) == (
                    "previous_response_not_found",
                    "previous_response_id",
                )
        for _ in range(64):
            ada.responses.create(**asked)
        with pytest.raises(BadRequestError, match="There is no response"):
            ada.responses.create(**asked, previous_response_id=first.id)


# The field that is wrong, its value, and what the message says.
WRONG: dict[str, tuple[str, Any, str]] = {
    "no input": ("input", [], "at least one"),
    "a remote image": (
        "input",
        [user({"type": "input_image", "image_url": "https://a.org/a.png"})],
        "nothing is fetched",
    ),
    "a stored image": ("input", [user({"type": "input_image", "file_id": "file-1"})], "nothing is fetched"),
    "a file": ("input", [user({"type": "input_file", "file_data": "AAAA"})], "Cannot show a file"),
    "a reference": ("input", [{"type": "item_reference", "id": "msg_1"}], "An item of the input is"),
    "an output without a call": ("input", [{"type": "function_call_output", "output": "a"}], "An item of the input is"),
    "actions that are none": ("input", [{"type": "computer_call", "actions": 5}], "An item of the input is"),
    "an output that is none": (
        "input",
        [{"type": "function_call_output", "call_id": "a", "output": 5}],
        "The content of a message is 5",
    ),
    "in the background": ("background", True, "background=True"),
    "a conversation": ("conversation", "conv_1", "conversation='conv_1'; leave it out."),
    "a stored prompt": ("prompt", {"id": "a"}, "prompt={'id': 'a'}"),
    "max_output_tokens": ("max_output_tokens", 0, "max_tokens is 0"),
    "a search": ("tools", [{"type": "web_search"}], "The tool 'web_search' cannot be served"),
    "a choice without tools": ("tool_choice", "required", "tool_choice is 'any'"),
    "a format": ("text", {"format": {"type": "grammar"}}, "text.format is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field(client: OpenAI, case: str) -> None:
    field, value, says = WRONG[case]
    body = {"model": "pocket", "input": "Hello.", "max_output_tokens": 2} | {field: value}
    for stream in (False, True):
        with pytest.raises(BadRequestError) as caught:
            client.post("/responses", cast_to=object, body=body | {"stream": stream})
        assert isinstance(caught.value.body, dict)
        assert says in caught.value.body["message"]


def test_a_failure_is_the_last_event(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    with serving(kamera) as url, client_of(url) as client:
        monkeypatch.setattr(kamera._engine, "prefill", fail)
        *_, last = client.responses.create(model="pocket", input="Hello.", stream=True)
    assert last.type == "response.failed"
    assert last.response.error
    assert last.response.error.code == "server_error"
    assert "secret" not in json.dumps(last.model_dump(), default=str)
