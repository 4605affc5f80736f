"""Chat completions through OpenAI's own client."""

import json
from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest
from huggingface import Conversation
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from serving import QUESTION, TIMEOUT, cached, client_of, screen, serving, shown, text, user

from kamera_agent import Kamera, Metrics


def test_the_answers_are_those_of_hugging_face(exact: Kamera) -> None:
    """Two questions about two screens, and the first screen left out: every answer is that of a full prefill."""
    family = exact.family
    messages: list[Any] = []
    with serving(exact) as url, client_of(url) as client:
        for seed in (1, 2, 3):
            messages.append(user(shown(seed), text(QUESTION)))
            if seed == 3:
                messages[0] = user(text(QUESTION))
            reply = client.chat.completions.create(model="pocket", messages=messages, max_tokens=8)
            reference = Conversation(family.model, family.processors.whole)
            for number, message in enumerate(messages, start=1):
                if message["role"] == "assistant":
                    reference.say("assistant", message["content"])
                else:
                    seen = [screen((number + 1) // 2)] if len(message["content"]) == 2 else []
                    reference.say("user", *seen, QUESTION)
            assert reply.choices[0].message.content == reference.generate(8)
            assert reply.choices[0].finish_reason == "stop"
            assert reply.model_dump()["kamera"]["exact"]
            messages.append({"role": "assistant", "content": reply.choices[0].message.content})


def test_a_stream_is_the_whole_answer_in_pieces(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": [user(shown(1), text(QUESTION))], "max_tokens": 8}
    whole = client.chat.completions.create(**asked)
    chunks = [*client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(pieces) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    usage = chunks[-1].usage
    assert usage
    assert usage.prompt_tokens == whole.usage.prompt_tokens  # type: ignore[union-attr]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    # Whoever does not ask for usage gets none.
    assert all(chunk.choices for chunk in client.chat.completions.create(**asked, stream=True))


def test_the_stream_as_it_is_sent(url: str) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2, "stream": True}
    response = httpx.post(f"{url}/chat/completions", json=body, timeout=TIMEOUT)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    first = json.loads(events[0].removeprefix("data: "))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_the_asynchronous_client(url: str, client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": [user(shown(2), text(QUESTION))], "max_tokens": 8}
    expected = client.chat.completions.create(**asked).choices[0].message.content
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT) as asynchronous:
        reply = await asynchronous.chat.completions.create(**asked)
        assert reply.choices[0].message.content == expected
        stream = await asynchronous.chat.completions.create(**asked, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == expected


def test_options(client: OpenAI) -> None:
    def ask(**options: Any) -> Any:
        asked = {"model": "pocket", "messages": [{"role": "user", "content": "Tell."}], "max_tokens": 6}
        return client.chat.completions.create(**asked | options).choices[0]

    forced = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": "abc"}}}}
    assert ask(**forced, max_tokens=40).message.content == '"abc"'
    for stop in ("b", ["x", "b"]):
        stopped = ask(**forced, max_tokens=40, stop=stop)
        assert (stopped.message.content, stopped.finish_reason) == ('"a', "stop")
    assert ask(max_tokens=1, **forced).finish_reason == "length"
    assert ask(max_tokens=None, max_completion_tokens=1, **forced).finish_reason == "length"
    hot = {"temperature": 3.0, "top_p": 0.99, "response_format": {"type": "json_object"}}
    draws = {seed: [ask(**hot, seed=seed).message.content for _ in range(2)] for seed in range(4)}
    assert all(first == second for first, second in draws.values())
    assert len({first for first, _ in draws.values()}) > 1


def test_nulls_and_unknown_fields(url: str) -> None:
    """Nulls are defaults. What changes nothing is named in a header, which a client cannot write into."""
    silent = dict.fromkeys(["temperature", "tools", "tool_choice", "stop", "seed", "response_format", "n", "user"])
    message = {"role": "user", "content": QUESTION, "name": None, "tool_calls": None, "tool_call_id": None}
    body = {"model": None, "messages": [message], "max_tokens": 2, "stream": None, **silent}
    plain = httpx.post(f"{url}/chat/completions", json=body, timeout=TIMEOUT)
    assert plain.status_code == 200
    assert "x-kamera-ignored" not in plain.headers
    others = {"n": 1, "metadata": {"a": "b"}, "frequency_penalty": 0.3, "a\r\nx-other: ü": 1}
    named = httpx.post(f"{url}/chat/completions", json=body | others, timeout=TIMEOUT)
    assert named.headers["x-kamera-ignored"] == "a%0D%0Ax-other%3A%20%C3%BC, frequency_penalty, metadata"
    assert named.json()["choices"] == plain.json()["choices"]


class Place(BaseModel):
    room: Literal["attic", "cellar"]
    floors: list[int]


def test_structured_output(client: OpenAI) -> None:
    messages: Any = [user(shown(1), text(QUESTION))]
    parsed = client.chat.completions.parse(
        model="pocket", messages=messages, response_format=Place, max_tokens=60
    ).choices[0]
    assert isinstance(parsed.message.parsed, Place)
    loose = client.chat.completions.create(
        model="pocket", messages=messages, response_format={"type": "json_object"}, max_tokens=60
    ).choices[0]
    assert loose.finish_reason == "length" or isinstance(json.loads(loose.message.content or ""), dict)
    assert (loose.message.content or "").startswith("{")


SAID = {"said": "<think>Left of ben?</think>the cellar"}
# What a client sends back of a reply, and whether that is the reply.
RETURNS: dict[str, tuple[Callable[[str], str], bool]] = {
    "indented": (lambda said: json.dumps(json.loads(said), indent=2), True),
    "with blanks around it": (lambda said: f"\n {said} \n", True),
    "without its reasoning": (lambda said: said.replace("<think>Left of ben?</think>", ""), True),
    "without either": (lambda said: json.dumps({"said": "the cellar"}, indent=1), True),
    "edited": (lambda said: said.replace("cellar", "attic"), False),
}


@pytest.mark.parametrize("way", RETURNS)
def test_a_reply_that_comes_back_in_another_form_is_ours(client: OpenAI, way: str) -> None:
    """It has the tokens that the model said, and all of them are kept."""
    change, is_ours = RETURNS[way]
    schema = {"type": "json_schema", "json_schema": {"name": "said", "schema": {"const": SAID}}}
    asked: dict[str, Any] = {"model": "pocket", "user": f"returns {way}", "max_tokens": 80}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    first = client.chat.completions.create(**asked, messages=messages, response_format=schema)  # type: ignore[call-overload]
    said = first.choices[0].message.content
    assert json.loads(said) == SAID
    messages += [{"role": "assistant", "content": change(said)}, {"role": "user", "content": "And now?"}]
    second = client.chat.completions.create(**asked, messages=messages)
    assert second.usage
    expected = first.usage.total_tokens if is_ours else first.usage.prompt_tokens
    assert expected <= cached(second) < expected + (1 if is_ours else first.usage.completion_tokens)


def test_replies_that_show_the_same_keep_their_reasoning(client: OpenAI) -> None:
    """The second one is not in the place of the first: all tokens are kept, as if the client had cut nothing out."""
    asked: dict[str, Any] = {"model": "pocket", "user": "the same again", "max_tokens": 80}
    whole, cut = [{"role": "user", "content": QUESTION}], [{"role": "user", "content": QUESTION}]
    for thought in ("<think>Left of ben?</think>", "<think>No, it is where carl was an hour ago.</think>"):
        schema = {"type": "json_schema", "json_schema": {"name": "said", "schema": {"const": f"{thought}the cellar"}}}
        reply = client.chat.completions.create(**asked, messages=cut, response_format=schema)
        said = reply.choices[0].message.content
        assert json.loads(said) == f"{thought}the cellar"
        for history, content in ((whole, said), (cut, said.replace(thought, ""))):
            history += [{"role": "assistant", "content": content}, {"role": "user", "content": "And now?"}]
    replies = [client.chat.completions.create(**asked, messages=history) for history in (cut, whole)]
    assert replies[0].usage.prompt_tokens == replies[1].usage.prompt_tokens
    assert cached(replies[0]) >= reply.usage.total_tokens
    assert replies[0].choices[0].message.content == replies[1].choices[0].message.content


def test_a_client_that_drops_old_screenshots(client: OpenAI, exact: Kamera) -> None:
    """The newest two of six screens stay. What is cached is compared with what a prefix cache may keep."""
    with serving(exact) as url, client_of(url) as prefix:
        ours, theirs = replay(client), replay(prefix)
    assert (ours[0], theirs[0]) == (0, 0)
    # Screens go from the third turn on.
    assert all(own > other for own, other in zip(ours[2:], theirs[2:], strict=True))
    assert sum(ours[2:]) > 1.5 * sum(theirs[2:])


def replay(client: OpenAI) -> list[float]:
    """The cached share of the prompt, turn by turn."""
    history: list[Any] = [{"role": "system", "content": "You see screens."}, user(text("Say where anna is."))]
    shares = []
    for seed in range(10, 16):
        history.append(user(text("Now:"), shown(seed)))
        screens = [message for message in history if message["role"] == "user" and len(message["content"]) == 2]
        kept = [message if message not in screens[:-2] else user(text("Now:"), text("[gone]")) for message in history]
        reply = client.chat.completions.create(model="pocket", messages=kept, max_tokens=4)
        assert reply.usage
        assert sum(reply.model_dump()["kamera"]["origins"].values()) == reply.usage.prompt_tokens
        shares.append(cached(reply) / reply.usage.prompt_tokens)
        history.append({"role": "assistant", "content": reply.choices[0].message.content})
    return shares


def test_models_health_and_metrics(exact: Kamera) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    metrics = Metrics(prometheus.CollectorRegistry())
    with serving(exact, metrics=metrics) as url, client_of(url) as client:
        assert [model.id for model in client.models.list()] == ["pocket"]
        assert client.models.retrieve("pocket").owned_by == "kamera"
        root = url.removesuffix("/v1")
        assert httpx.get(f"{root}/health").json() == {"status": "ok"}
        client.chat.completions.create(model="pocket", messages=[{"role": "user", "content": "Hi."}], max_tokens=2)
        page = httpx.get(f"{root}/metrics").text
    counts = "".join(line for line in page.splitlines() if line.startswith("kamera_request_success_total"))
    assert counts.endswith(" 1.0")
