"""Whatever a client sends is answered by OpenAI's error, and never by a failure of the server."""

import json
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from serving import TIMEOUT, client_of, serving

from kamera_agent import Kamera
from kamera_agent.serve.app import Bounds

HELLO = [{"role": "user", "content": "Hello."}]
REMOTE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}

# The field that is wrong, its value, and what the message says.
WRONG: dict[str, tuple[str, Any, str]] = {
    "no messages": ("messages", [], "at least one"),
    "messages of another type": ("messages", "Hello.", "messages is 'Hello.'"),
    "a remote image": ("messages", [{"role": "user", "content": [REMOTE]}], "nothing is fetched from 'https://"),
    "a recording": ("messages", [{"role": "user", "content": [AUDIO]}], "'audio'"),
    "a part that is a number": ("messages", [{"role": "user", "content": [5]}], "content"),
    "an image of the system": (
        "messages",
        [{"role": "system", "content": [{"type": "image_url", "image_url": "data:,a"}]}, *HELLO],
        "",
    ),
    "an unknown role": ("messages", [{"role": "function", "content": "a"}], "messages.0.role"),
    "no role": ("messages", [{"content": "a"}], "messages.0.role is missing"),
    "two choices": ("n", 2, "n=2"),
    "logprobs": ("logprobs", True, "logprobs"),
    "temperature": ("temperature", -1, "temperature is -1"),
    "temperature that is a word": ("temperature", "hot", "temperature is 'hot'"),
    "temperature without an end": ("temperature", float("inf"), "temperature"),
    "top_p": ("top_p", 0, "top_p is 0"),
    "seed": ("seed", 2**70, "seed"),
    "max_tokens": ("max_tokens", 0, "max_tokens is 0"),
    "two limits": ("max_completion_tokens", 5, "max_tokens and another name"),
    "stop": ("stop", [""], "stop"),
    "a tool without a name": ("tools", [{"type": "function", "function": {}}], "tools has"),
    "parameters that are no schema": (
        "tools",
        [{"type": "function", "function": {"name": "a", "parameters": [1]}}],
        "parameters of 'a'",
    ),
    "a choice without tools": ("tool_choice", "required", "tool_choice is 'any'"),
    "a choice of another form": ("tool_choice", {"type": "allowed_tools"}, "tool_choice is"),
    "response_format": ("response_format", {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}, "schema"),
    "user": ("user", {"a": 1}, "user is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field(url: str, case: str) -> None:
    field, value, says = WRONG[case]
    body = {"model": "pocket", "messages": HELLO, "max_tokens": 2} | {field: value}
    for stream in (False, True):
        response = httpx.post(
            f"{url}/chat/completions",
            content=json.dumps(body | {"stream": stream}),
            headers={"content-type": "application/json"},
            timeout=TIMEOUT,
        )
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert says in error["message"]
        assert len(error["message"]) < 400


NO_REQUESTS = [b"", b"{", b"[]", b"5", b"\xff\xfe", b'{"a": ' * 2000, b'{"messages": 1' + b"0" * 5000]


@pytest.mark.parametrize("body", NO_REQUESTS, ids=range(len(NO_REQUESTS)))
@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_body_that_is_no_request(url: str, body: bytes, kind: str) -> None:
    response = httpx.post(f"{url}/chat/completions", content=body, headers={"content-type": kind})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["chat/completions", "messages", "messages/count_tokens", "responses"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None])
def test_a_body_that_any_page_could_send(url: str, path: str, kind: str | None) -> None:
    """A browser asks the server before it sends other types than these."""
    body = json.dumps({"messages": HELLO, "input": "Hello.", "max_tokens": 1}).encode()
    headers = {} if kind is None else {"content-type": kind}
    response = httpx.post(f"{url}/{path}", content=body, headers=headers, timeout=TIMEOUT)
    assert response.status_code == 415
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "send application/json" in error["message"]


def test_odd_contents(url: str) -> None:
    """Half an emoji, and results in results: they are read, or refused where there are too many."""

    def send(content: str) -> int:
        body = f'{{"messages": [{{"role": "user", "content": {content}}}], "max_tokens": 1}}'
        kind = {"content-type": "application/json"}
        return httpx.post(f"{url}/chat/completions", content=body, headers=kind, timeout=TIMEOUT).status_code

    assert send('"half \\ud83d"') == 200
    opening, closing = '[{"type": "tool_result", "content": ', "}]"
    assert [send(f'{opening * depth}"end"{closing * depth}') for depth in (1, 100, 5000)] == [200, 200, 400]
    assert all(send(f'{opening * depth}"end"{closing * depth}') < 500 for depth in range(300, 500, 20))


def test_what_is_not_there(url: str, client: OpenAI) -> None:
    messages: Any = HELLO
    for ask in (
        lambda: client.chat.completions.create(model="gpt-5", messages=messages),
        lambda: client.models.retrieve("gpt-5"),
        lambda: client.embeddings.create(model="pocket", input="a"),
    ):
        with pytest.raises(NotFoundError) as caught:
            ask()  # type: ignore[no-untyped-call]
        assert isinstance(caught.value.body, dict)
    assert httpx.put(f"{url}/chat/completions").json()["error"]["type"] == "invalid_request_error"


def test_a_conversation_that_is_too_long(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Where is anna? " * 5000}]
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="pocket", messages=messages)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large(kamera: Kamera, chunked: bool) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "a" * 5000}]}).encode()
    with serving(kamera, bounds=Bounds(body_bytes=4096)) as url:
        content: Any = iter([body[:2500], body[2500:]]) if chunked else body
        response = httpx.post(
            f"{url}/chat/completions", content=content, headers={"content-type": "application/json"}, timeout=TIMEOUT
        )
        assert (response.status_code, response.json()["error"]["code"]) == (413, None)
        with client_of(url) as client:
            assert client.models.list()


def test_a_failure_of_the_server_is_not_told(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the answer by its status, later by the last event of the stream."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    asked = {"messages": HELLO, "max_tokens": 4}
    with serving(kamera) as url:
        monkeypatch.setattr(kamera._engine, "prefill", fail)
        whole = httpx.post(f"{url}/chat/completions", json=asked, timeout=TIMEOUT)
        stream = httpx.post(f"{url}/chat/completions", json=asked | {"stream": True}, timeout=TIMEOUT)
    assert (whole.status_code, stream.status_code) == (500, 200)
    told = [whole.json(), json.loads(stream.text.split("\n\n")[-2].removeprefix("data: "))]
    assert [each["error"]["type"] for each in told] == ["server_error"] * 2
    assert "secret" not in whole.text + stream.text
