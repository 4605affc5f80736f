"""Answers that nobody waits for any more, and callers that wait for each other."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera

TIMEOUT = 20
# A reply of some thousand tokens.
LONG: dict[str, Any] = {
    "response_format": {"type": "array", "items": {"type": "integer"}, "minItems": 800},
    "max_tokens": 4000,
}
QUESTION = "Where is anna?"


async def begun(passes: list[int]) -> None:
    """Returns when a reply is some tokens long."""
    start = len(passes)
    while len(passes) < start + 5:
        await asyncio.sleep(0.001)


async def invoke(chat: ChatKamera, conversation: str) -> None:
    await chat.ainvoke(QUESTION, conversation=conversation, **LONG)


async def astream(chat: ChatKamera, conversation: str) -> None:
    async for _ in chat.astream(QUESTION, conversation=conversation, **LONG):
        pass


@pytest.mark.parametrize("way", [invoke, astream])
async def test_a_cancelled_task_stops_within_a_token(way: Any, kamera: Kamera, passes: list[int]) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=8)
    plain = (await chat.ainvoke(QUESTION, conversation=f"plain {way.__name__}")).text
    task = asyncio.create_task(way(chat, way.__name__))
    await begun(passes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stopped(passes)
    # The next answer of that conversation is that of a plain prefill.
    assert (await chat.ainvoke(QUESTION, conversation=way.__name__)).text == plain


async def test_a_task_that_waits_for_its_turn_can_be_cancelled(kamera: Kamera, passes: list[int]) -> None:
    chat = ChatKamera(kamera=kamera)
    first = asyncio.create_task(invoke(chat, "busy"))
    await begun(passes)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(chat.ainvoke(QUESTION, conversation="busy"), 0.05)
    assert not first.done()
    first.cancel()
    await stopped(passes)


async def test_a_client_that_hangs_up_stops_the_reply(kamera: Kamera, passes: list[int]) -> None:
    chat = ChatKamera(kamera=kamera)
    plain = chat.invoke(QUESTION, conversation="plain hung up", max_tokens=8).text
    stream: AsyncIterator[Any] = chat.astream(QUESTION, conversation="hung up", **LONG)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await stopped(passes)
    pieces: Iterator[Any] = chat.stream(QUESTION, conversation="hung up", **LONG)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    await stopped(passes)
    assert chat.invoke(QUESTION, conversation="hung up", max_tokens=8).text == plain


async def stopped(passes: list[int]) -> None:
    """Asserts that at most one more forward pass ends."""
    before = len(passes)
    await asyncio.sleep(0.2)
    assert len(passes) <= before + 1


async def test_more_streams_than_threads_of_the_executor(kamera: Kamera) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=4)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    async def ask() -> str:
        return "".join([chunk.text async for chunk in chat.astream(QUESTION, conversation="many")])

    replies = await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(4))), TIMEOUT)
    assert replies == [replies[0]] * 4


def test_an_open_stream_does_not_block_its_conversation(kamera: Kamera) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=8)
    stream = chat.stream(QUESTION, conversation="open")
    first = next(stream)
    other = threading.Thread(target=chat.invoke, args=("And ben?",), kwargs={"conversation": "open"}, daemon=True)
    other.start()
    other.join(TIMEOUT)
    assert not other.is_alive()
    # The stream can still be read, to its end.
    whole = first.text + "".join(chunk.text for chunk in stream)
    assert whole == chat.invoke(QUESTION, conversation="open alone").text


@pytest.mark.timeout(120)
def test_a_program_ends_with_an_open_stream() -> None:
    """At once, and not when the reply has ended."""
    program = f"""
from kamera_agent.agent import ChatKamera
stream = ChatKamera(model="pocket", model_kwargs={{"store": None}}).stream("Where is anna?", **{LONG!r})
next(stream)
print("began")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "began\n")
    assert "Traceback" not in done.stderr
