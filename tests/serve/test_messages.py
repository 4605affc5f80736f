"""Messages through Anthropic's own client."""

import gc
from pathlib import Path
from typing import Any, Literal

import httpx
from anthropic import Anthropic, AsyncAnthropic
from huggingface import Conversation
from pydantic import BaseModel
from serving import QUESTION, TIMEOUT, anthropic_of, encoded, screen, serving, text, user

from kamera_agent import Kamera
from kamera_agent.serve.keys import Keys


def shown(seed: int) -> dict[str, Any]:
    """The block that shows a screen."""
    source = {"type": "base64", "media_type": "image/png", "data": encoded(seed)}
    return {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}}


def total(message: Any) -> int:
    """Tokens of the prompt."""
    usage = message.usage
    return int(usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens)


def test_the_answers_are_those_of_hugging_face(exact: Kamera) -> None:
    """Three questions about three screens, the first of which is left out at last, behind a system prompt of blocks."""
    family, system = exact.family, "You see screens."
    messages: list[Any] = []
    with serving(exact) as url, anthropic_of(url) as client:
        for seed in (1, 2, 3):
            messages.append(user(shown(seed), text(QUESTION)))
            if seed == 3:
                messages[0] = user(text(QUESTION))
            reply = client.messages.create(
                model="pocket",
                system=[{**text(system), "cache_control": {"type": "ephemeral"}}],  # type: ignore[typeddict-item]
                messages=messages,
                max_tokens=8,
            )
            reference = Conversation(family.model, family.processors.whole)
            reference.say("system", system)
            for number, message in enumerate(messages, start=1):
                if message["role"] == "assistant":
                    reference.say("assistant", message["content"][0].text)
                else:
                    seen = [screen((number + 1) // 2)] if len(message["content"]) == 2 else []
                    reference.say("user", *seen, QUESTION)
            (block,) = reply.content
            assert block.type == "text"
            assert block.text == reference.generate(8)
            assert (reply.stop_reason, reply.stop_sequence, reply.role) == ("end_turn", None, "assistant")
            assert reply.model_dump()["kamera"]["exact"]
            messages.append({"role": "assistant", "content": reply.content})


def test_usage(anthropic: Anthropic, kamera: Kamera) -> None:
    """What is read from the cache grows; a new screen creates an entry; the parts add up to the whole."""
    # With a system prompt of its own, it begins as no other conversation does.
    asked: dict[str, Any] = {"model": "pocket", "system": "Screens come, and you count."}
    messages: list[Any] = [user(text("Count."), shown(40), text(QUESTION))]
    first = anthropic.messages.create(**asked, messages=messages, max_tokens=4)
    messages += [{"role": "assistant", "content": first.content}, user(text(QUESTION))]
    second = anthropic.messages.create(**asked, messages=messages, max_tokens=4)
    assert first.usage.cache_read_input_tokens == 0
    assert first.usage.cache_creation_input_tokens == len(kamera.family.image_chunk(screen(40), "default").token_ids)
    assert second.usage.cache_creation_input_tokens == 0
    assert second.usage.cache_read_input_tokens >= total(first)
    assert second.usage.input_tokens < 20
    counted = anthropic.messages.count_tokens(**asked, messages=messages)
    assert counted.input_tokens == total(second)


def test_tokens_are_counted_among_the_replies_to_a_key(tmp_path: Path) -> None:
    """The reply comes back with blanks around it, which its prompt does not have."""
    (tmp_path / "keys").write_text("ada-0123456789abc\n")
    with (
        Kamera.pocket() as kamera,
        serving(kamera, keys=Keys.read(tmp_path / "keys")) as url,
        anthropic_of(url, "ada-0123456789abc") as client,
    ):
        asked: dict[str, Any] = {"model": "pocket", "messages": [user(text(QUESTION))]}
        said = client.messages.create(**asked, max_tokens=2).content[0].text
        asked["messages"] += [{"role": "assistant", "content": f"  {said} \n"}, user(text(QUESTION))]
        counted = client.messages.count_tokens(**asked)
        assert counted.input_tokens == total(client.messages.create(**asked, max_tokens=2))


def test_the_events_of_a_stream(anthropic: Anthropic) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": [user(shown(1), text(QUESTION))], "max_tokens": 8}
    whole = anthropic.messages.create(**asked)
    events = [*anthropic.messages.create(**asked, stream=True)]
    names = [event.type for event in events]
    assert names[:2] == ["message_start", "content_block_start"]
    assert {*names[2:-3]} == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0].message.content == []
    assert "".join(event.delta.text for event in events[2:-3]) == whole.content[0].text
    with anthropic.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert (final.stop_reason, total(final)) == (whole.stop_reason, total(whole))
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_the_stream_as_it_is_sent(url: str) -> None:
    """With a ping, which the client does not show."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2, "stream": True}
    response = httpx.post(f"{url}/messages", json=body, timeout=TIMEOUT)
    assert response.headers["content-type"].startswith("text/event-stream")
    names = [event.splitlines()[0] for event in response.text.removesuffix("\n\n").split("\n\n")]
    assert names[:3] == ["event: message_start", "event: ping", "event: content_block_start"]
    assert names[-1] == "event: message_stop"


async def test_the_asynchronous_client(url: str, anthropic: Anthropic) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": [user(shown(2), text(QUESTION))], "max_tokens": 8}
    expected = anthropic.messages.create(**asked).content
    async with AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key="none", timeout=TIMEOUT) as client:
        assert (await client.messages.create(**asked)).content == expected
        async with client.messages.stream(**asked) as stream:
            assert (await stream.get_final_message()).content[0].text == expected[0].text


def test_where_a_reply_ends(anthropic: Anthropic) -> None:
    def ask(**options: Any) -> Any:
        output = {"format": {"type": "json_schema", "schema": {"const": "abc"}}}
        asked = {"model": "pocket", "messages": [user(text("Tell."))], "max_tokens": 40, "output_config": output}
        return anthropic.messages.create(**asked | options)

    whole = ask()
    assert (whole.content[0].text, whole.stop_reason) == ('"abc"', "end_turn")
    for words in (["b"], ["x", "c", "b"]):
        stopped = ask(stop_sequences=words)
        assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ('"a', "stop_sequence", "b")
    assert ask(max_tokens=1).stop_reason == "max_tokens"


class Place(BaseModel):
    room: Literal["attic", "cellar"]
    floors: list[int]


def test_structured_output(anthropic: Anthropic) -> None:
    messages: Any = [user(shown(1), text(QUESTION))]
    parsed = anthropic.messages.parse(model="pocket", messages=messages, output_format=Place, max_tokens=60)
    assert isinstance(parsed.parsed_output, Place)


def test_what_changes_nothing_is_named(url: str) -> None:
    silent = dict.fromkeys(["system", "temperature", "tools", "tool_choice", "stop_sequences", "metadata", "thinking"])
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("No.")]}
    messages = [user(text(QUESTION)), thought, user(text(QUESTION))]
    body = {"model": "pocket", "messages": messages, "max_tokens": 2, **silent, "service_tier": "auto"}
    others = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "cache_control": {"type": "ephemeral"}}
    plain = httpx.post(f"{url}/messages", json=body, timeout=TIMEOUT)
    named = httpx.post(f"{url}/messages", json=body | others, timeout=TIMEOUT)
    assert plain.headers["x-kamera-ignored"] == "service_tier"
    assert named.headers["x-kamera-ignored"] == "cache_control, service_tier, thinking"
    assert plain.json()["content"] == named.json()["content"]


def test_a_user_id_names_a_conversation(anthropic: Anthropic, kamera: Kamera) -> None:
    """Each has a window of its own, which it goes on with."""

    def num_windows_after(name: str) -> int:
        asked: dict[str, Any] = {"messages": [user(text("Tell me about anna."))], "metadata": {"user_id": name}}
        anthropic.messages.create(model="pocket", max_tokens=2, **asked)
        gc.collect()
        return kamera.stats().num_windows

    first, again, other = map(num_windows_after, ("one", "one", "two"))
    assert (again, other) == (first, first + 1)
