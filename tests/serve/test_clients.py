"""Several clients of one server: side by side, with other keys, and gone before the end."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, AuthenticationError, OpenAI, RateLimitError
from serving import QUESTION, TIMEOUT, cached, client_of, serving, shown, text, user

from kamera_agent import Kamera, SettingError
from kamera_agent.serve.app import Bounds
from kamera_agent.serve.keys import Keys
from kamera_agent.store.lmdb_store import LmdbStore

ADA, BOB, CARL = "ada-0123456789abc", "bob-0123456789abc", "carl-0123456789abc"
# A reply of some thousand tokens.
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 800}
LONG: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "numbers", "schema": NUMBERS}},
    "max_tokens": 4000,
}


def test_two_clients_with_the_same_opening(exact: Kamera) -> None:
    """They take turns in what looks like one conversation, and get the answers that each gets alone."""
    opening = [{"role": "system", "content": "You see screens."}, user(text("Say where anna is."), shown(1))]

    def speak(client: OpenAI, seed: int, thread: str | None) -> Iterator[str]:
        messages: list[Any] = [*opening]
        for step in range(3):
            extra = {"x-kamera-thread": thread} if thread else {}
            reply = client.chat.completions.create(model="pocket", messages=messages, max_tokens=6, extra_headers=extra)
            said = reply.choices[0].message.content or ""
            messages += [{"role": "assistant", "content": said}, user(shown(seed + step), text(QUESTION))]
            yield said

    with serving(exact) as url, client_of(url) as client:
        both = [*zip(speak(client, 20, None), speak(client, 30, None), strict=True)]
        alone = [*zip(speak(client, 20, "one"), speak(client, 30, "two"), strict=True)]
    assert both == alone
    assert both[-1][0] != both[-1][1]


def test_a_client_that_rewrites_its_only_message_keeps_the_system_prompt(exact: Kamera) -> None:
    """As browser-use does. Each call looks like a new conversation, and is answered as by a server of its own."""
    system = "You use a browser. " * 20
    asked = [
        [{"role": "system", "content": system}, user(text(f"{done} {QUESTION}"), shown(step))]
        for step, done in enumerate(("", "one.", "one. two."))
    ]
    with serving(exact) as url, client_of(url) as client:
        replies = [client.chat.completions.create(model="pocket", messages=each, max_tokens=4) for each in asked]
    alone = []
    for each in asked:
        with Kamera.pocket(fidelity="exact") as fresh, serving(fresh) as url, client_of(url) as client:
            reply = client.chat.completions.create(model="pocket", messages=each, max_tokens=4)
            alone.append(reply.choices[0].message.content)
    assert [reply.choices[0].message.content for reply in replies] == alone
    num_system = len(exact.family.tokens.encode(system))
    assert all(cached(reply) >= num_system for reply in replies[1:])


def test_many_clients_at_once(url: str, client: OpenAI) -> None:
    def ask(seed: int) -> str:
        reply = client.chat.completions.create(
            model="pocket", messages=[user(shown(seed % 4), text(QUESTION))], max_tokens=4
        )
        return reply.choices[0].message.content or ""

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(ask, range(12))] == alone * 3


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_stops_its_answer(url: str, passes: list[int], stream: bool) -> None:
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT) as client:
        question: Any = [{"role": "user", "content": QUESTION}]
        task = asyncio.create_task(_listen(client, question, stream))
        while len(passes) < 5:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        before = len(passes)
        await asyncio.sleep(0.2)
        assert len(passes) == before
        reply = await client.chat.completions.create(model="pocket", messages=question, max_tokens=4)
        assert reply.choices[0].message.content


async def _listen(client: AsyncOpenAI, messages: Any, stream: bool) -> None:
    answer: Any = await client.chat.completions.create(model="pocket", messages=messages, stream=stream, **LONG)
    async for _ in answer:
        pass


def test_clients_that_hang_up_leave_nothing(kamera: Kamera) -> None:
    """Twenty of them, before the first token and after it, at a server of two places: no thread or place is lost."""
    body = {"messages": [{"role": "user", "content": QUESTION}], **LONG}
    with serving(kamera, bounds=Bounds(num_answered=1, num_waiting=1)) as url, client_of(url) as client:
        for number in range(10):
            asked = body | {"user": f"{number}"}
            with httpx.stream(
                "POST", f"{url}/chat/completions", json=asked | {"stream": True}, timeout=TIMEOUT
            ) as stream:
                next(stream.iter_raw(), None)
            with suppress(httpx.ReadTimeout):
                httpx.post(f"{url}/chat/completions", json=asked, timeout=0.02 * (number % 5 + 1))
        end = time.monotonic() + TIMEOUT
        while any(thread.name == "kamera-answer" for thread in threading.enumerate()) and time.monotonic() < end:
            time.sleep(0.05)
        assert time.monotonic() < end
        messages: Any = body["messages"]
        with ThreadPoolExecutor(2) as pool:
            both = [
                pool.submit(client.chat.completions.create, model="pocket", messages=messages, max_tokens=2)
                for _ in range(2)
            ]
            assert all(reply.result(TIMEOUT).choices for reply in both)


def test_beyond_its_places_a_server_refuses(kamera: Kamera) -> None:
    """One request is answered. Of two others, one is refused, and one is answered once the first client has gone."""
    asked: dict[str, Any] = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}]}
    with serving(kamera, bounds=Bounds(num_answered=1, num_waiting=1)) as url, client_of(url) as client:
        stream = client.chat.completions.create(**asked, **LONG, stream=True)
        next(stream)
        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(client.chat.completions.create, **asked, max_tokens=2) for _ in range(2)]
            (refused,), (waits,) = wait(others, TIMEOUT, FIRST_COMPLETED)
            error = refused.exception()
            assert isinstance(error, RateLimitError)
            assert error.response.headers["retry-after"] == "1"
            stream.close()
            assert waits.result(TIMEOUT).choices


def test_keys_and_their_namespaces(tmp_path: Path) -> None:
    """Ada and Bob see the same screen, and share nothing. Carl has the namespace of Ada."""
    file = tmp_path / "keys"
    file.write_text(f"# staff\n{ADA}\n{BOB} team\n\n{CARL} team\n")
    computed = []
    with Kamera.pocket() as kamera, serving(kamera, keys=Keys.read(file)) as url:
        for key in (ADA, BOB, CARL):
            with client_of(url, key) as client:
                reply = client.chat.completions.create(
                    model="pocket", messages=[user(shown(1), text(QUESTION))], max_tokens=4
                )
                computed.append(reply.usage.prompt_tokens - cached(reply))  # type: ignore[union-attr]
                kamera.flush()
        assert computed[0] == computed[1] > 5 * computed[2]
        assert len(kamera.store.headers()) == 2
        for wrong in ("none", ADA[:-1], ADA + "d", ""):
            with client_of(url, wrong or "x") as client, pytest.raises(AuthenticationError) as caught:
                client.models.list()
            assert caught.value.body == {
                "message": "The API key is missing or unknown; send it as a bearer token, or as x-api-key.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        assert httpx.get(url.removesuffix("/v1") + "/health").status_code == 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("short", "Key 1 of 1 is no text of at least 16"),
        ("ä" * 20, "Key 1 of 1"),
        (f"{ADA} team other", "Line 1 .* has more than"),
        (f"{ADA}\n{ADA} team", "Line 2 .* repeats a key"),
        ("# none\n", "has none"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(SettingError, match=says) as caught:
        Keys.read(tmp_path / "keys")
    assert ADA not in str(caught.value)


def test_without_keys_only_names_of_this_machine_are_answered(url: str) -> None:
    """A page of another site can have its own name point to 127.0.0.1."""
    for host, status in (("localhost:1", 200), ("[::1]", 200), ("127.0.0.1", 200), ("evil.example", 403), ("[", 403)):
        assert httpx.get(f"{url}/models", headers={"host": host}).status_code == status


def test_a_shutdown_ends_answers_and_keeps_what_was_computed(tmp_path: Path) -> None:
    with LmdbStore(tmp_path / "store") as store, Kamera.pocket(store) as kamera:
        with serving(kamera) as url, client_of(url) as client:
            asked: dict[str, Any] = {"model": "pocket", "messages": [user(shown(1), text(QUESTION))]}
            client.chat.completions.create(**asked, max_tokens=2)
        assert [header.kind for header in store.headers()] == ["base"]
        with serving(kamera) as url, client_of(url) as client:
            kamera.close()
            with pytest.raises(APIStatusError, match="shutting down"):
                client.chat.completions.create(**asked, max_tokens=2)
