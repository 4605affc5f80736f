"""Whatever a client of Messages sends is answered by Anthropic's error, and never by a failure of the server."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import APIStatusError, AuthenticationError, BadRequestError, NotFoundError, RequestTooLargeError
from serving import TIMEOUT, anthropic_of, serving, text, user

from kamera_agent import Kamera
from kamera_agent.serve.app import Bounds
from kamera_agent.serve.keys import Keys

HELLO = [user(text("Hello."))]
REMOTE = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
FILE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}

# The field that is wrong, its value, and what the message says.
WRONG: dict[str, tuple[str, Any, str]] = {
    "no messages": ("messages", [], "at least one"),
    "a remote image": ("messages", [user(REMOTE)], "nothing is fetched from 'https://"),
    "a stored image": ("messages", [user(FILE)], "nothing is fetched from 'file_1'"),
    "a document": ("messages", [user(PDF)], "Cannot show a file (application/pdf)"),
    "a reply that was begun": ("messages", [*HELLO, {"role": "assistant", "content": "I"}], "end with the user"),
    "a call without a name": (
        "messages",
        [*HELLO, {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}, *HELLO],
        "A tool_use block is",
    ),
    "an unknown role": ("messages", [{"role": "tool", "content": "a"}], "messages.0.role"),
    "no content": ("messages", [{"role": "user"}], "messages.0.content is missing"),
    "an image of the system": ("system", [FILE], "nothing is fetched"),
    "temperature": ("temperature", -1, "temperature is -1"),
    "max_tokens": ("max_tokens", 0, "max_tokens is 0"),
    "stop_sequences": ("stop_sequences", [""], "stop"),
    "a choice without tools": ("tool_choice", {"type": "any"}, "tool_choice is 'any'"),
    "a schema": ("output_config", {"format": {"type": "json_schema", "schema": {"type": 5}}}, "schema"),
    "a format without a schema": ("output_config", {"format": {"type": "json_schema"}}, "The format of the output is"),
    "servers of tools": ("mcp_servers", [{"type": "url", "url": "https://a", "name": "a"}], "mcp_servers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field(url: str, case: str) -> None:
    field, value, says = WRONG[case]
    body = {"model": "pocket", "messages": HELLO, "max_tokens": 2} | {field: value}
    for stream in (False, True):
        response = httpx.post(f"{url}/messages", json=body | {"stream": stream}, timeout=TIMEOUT)
        assert response.status_code == 400, response.text
        told = response.json()
        assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
        assert says in told["error"]["message"]
        assert len(told["error"]["message"]) < 400


def test_errors_of_the_client(tmp_path: Path) -> None:
    """One by one: no key, another model, a window that is too long, a body that is too large."""
    (tmp_path / "keys").write_text("ada-0123456789abc\n")
    messages: Any = HELLO
    bounds = Bounds(body_bytes=1 << 18)
    with Kamera.pocket() as kamera, serving(kamera, keys=Keys.read(tmp_path / "keys"), bounds=bounds) as url:
        with anthropic_of(url, "wrong") as client, pytest.raises(AuthenticationError) as caught:
            client.messages.create(model="pocket", messages=messages, max_tokens=2)
        assert caught.value.body == {
            "type": "error",
            "error": {
                "type": "authentication_error",
                "message": "The API key is missing or unknown; send it as a bearer token, or as x-api-key.",
            },
        }
        with anthropic_of(url, "ada-0123456789abc") as client:
            assert client.messages.create(model="pocket", messages=messages, max_tokens=2).content
            with pytest.raises(NotFoundError, match="There is no model 'claude'"):
                client.messages.create(model="claude", messages=messages, max_tokens=2)
            messages = [user(text("Where is anna? " * 5000))]
            with pytest.raises(BadRequestError, match="tokens"):
                client.messages.create(model="pocket", messages=messages, max_tokens=2)
            messages = [user(text("Where is anna? " * 50000))]
            with pytest.raises(RequestTooLargeError):
                client.messages.create(model="pocket", messages=messages, max_tokens=2)


def test_a_failure_of_the_server_is_not_told(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the answer by its status, later by the last event of the stream."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    asked: dict[str, Any] = {"model": "pocket", "messages": HELLO, "max_tokens": 4}
    with serving(kamera) as url, anthropic_of(url) as client:
        monkeypatch.setattr(kamera._engine, "prefill", fail)
        with pytest.raises(APIStatusError) as late:
            [*client.messages.create(**asked, stream=True)]
        with pytest.raises(APIStatusError) as whole:
            client.messages.create(**asked)
    bodies: list[Any] = [late.value.body, whole.value.body]
    assert [body["error"]["type"] for body in bodies] == ["api_error"] * 2
    assert "secret" not in f"{whole.value}{late.value}"
