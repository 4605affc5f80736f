"""Answers, turns and bodies that take too long."""

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from anthropic import APIStatusError as AnthropicError
from openai import APIError, InternalServerError, RateLimitError
from serving import QUESTION, anthropic_of, client_of, serving, user

from kamera_agent import Kamera
from kamera_agent.serve.app import Bounds

NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 800}
LONG: dict[str, Any] = {
    "model": "pocket",
    "messages": [{"role": "user", "content": QUESTION}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "numbers", "schema": NUMBERS}},
    "max_tokens": 4000,
}
SHORT: dict[str, Any] = {"model": "pocket", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}


def test_an_answer_that_takes_too_long(kamera: Kamera) -> None:
    """Whole it is an error; a stream ends with one. The next answer is given."""
    with serving(kamera, bounds=Bounds(answer_s=0.5)) as url, client_of(url) as client:
        with pytest.raises(InternalServerError, match="longer than") as caught:
            client.chat.completions.create(**LONG)
        assert caught.value.status_code == 504
        pieces = []
        with pytest.raises(APIError, match="longer than"):
            pieces += [*client.chat.completions.create(**LONG, stream=True)]
        assert client.chat.completions.create(**SHORT).choices
        long = {**SHORT, "max_tokens": 4000, "output_config": {"format": {"type": "json_schema", "schema": NUMBERS}}}
        with anthropic_of(url) as other, pytest.raises(AnthropicError) as refused:
            other.messages.create(**long)
    body: Any = refused.value.body
    assert body["error"]["type"] == "timeout_error"


def test_a_turn_that_does_not_come(kamera: Kamera) -> None:
    bounds = Bounds(num_answered=1, num_waiting=4, wait_s=0.2)
    with serving(kamera, bounds=bounds) as url, client_of(url) as client:
        stream = client.chat.completions.create(**LONG, stream=True)
        next(stream)
        for _ in range(2):
            with pytest.raises(RateLimitError, match="has waited for") as caught:
                client.chat.completions.create(**SHORT)
            assert caught.value.response.headers["retry-after"] == "1"
        stream.close()
        assert client.with_options(max_retries=5).chat.completions.create(**SHORT).choices


def test_a_body_that_does_not_come(kamera: Kamera) -> None:
    """It does not keep its place in the server."""
    with serving(kamera, bounds=Bounds(num_answered=1, num_waiting=0, body_s=0.3)) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as slow:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-length: 99\r\n"
            slow.sendall(f"{head}content-type: application/json\r\n\r\n{{".encode())
            told = ""
            while not told.endswith("}"):
                told += slow.recv(4096).decode()
        with client_of(url) as client:
            assert client.chat.completions.create(**SHORT).choices
    assert told.startswith("HTTP/1.1 408")
    assert "within 0.3 s" in told


def test_a_body_may_be_slow(kamera: Kamera) -> None:
    """What follows it is not timed: a client that has sent it may wait for its answer."""
    with serving(kamera, bounds=Bounds(body_s=0.3)) as url, anthropic_of(url) as client:
        messages: Any = [user({"type": "text", "text": QUESTION})]
        config: Any = {"format": {"type": "json_schema", "schema": {"type": "string", "minLength": 150}}}
        reply = client.messages.create(model="pocket", messages=messages, max_tokens=300, output_config=config)
    assert reply.content
