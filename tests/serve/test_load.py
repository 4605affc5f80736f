"""Many clients for a long time, and clients that are killed: a cut of both, and all of it with -m torture."""

import gc
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from serving import QUESTION, client_of, posted, serving, shown, text, user

from kamera_agent import Kamera
from kamera_agent.serve.app import Bounds
from kamera_agent.store.memory import MemoryStore
from kamera_agent.turns.chat import Limits

MIB = 1 << 20
NUM_CLIENTS, NUM_SCREENS, NUM_STEPS = 8, 4, 6
STORE_BYTES, WINDOW_BYTES = 16 * MIB, 16 * MIB
# Fewer conversations than clients, so that windows are let go all the time, and fewer places to be answered in.
BOUNDS = Bounds(num_answered=3, conversations=Limits(max_conversations=3, max_bytes=WINDOW_BYTES, max_string=None))
LOAD_S, NUM_KILLED = 300, 200
# Of a client that waits for seven others.
PATIENCE_S = 120
# Abort a connection instead of closing it, as the system does for a process that is killed.
ABORT = struct.pack("ii", 1, 0)


def conversation(client: OpenAI, seed: int) -> Iterator[str]:
    """The answers to an agent that shows its last two screens. Two agents have the opening of each seed."""
    history: list[Any] = [{"role": "system", "content": f"You are agent {seed}."}]
    for step in range(NUM_STEPS):
        history.append(user(shown((seed + step) % NUM_SCREENS), text(QUESTION)))
        for message in history[1:-4:2]:
            message["content"] = [text("[gone]")]
        reply = client.chat.completions.create(model="pocket", messages=history, max_tokens=4).choices[0]
        assert reply.finish_reason in ("stop", "length")
        history.append({"role": "assistant", "content": reply.message.content})
        yield reply.message.content or ""


@pytest.fixture
def loaded() -> Iterator[Kamera]:
    # What waits to be remembered is bounded, too: the cores are busy with answers.
    with Kamera.pocket(MemoryStore(STORE_BYTES), fidelity="exact", memory_bytes=STORE_BYTES) as kamera:
        yield kamera


@contextmanager
def peak_of(measure: Callable[[], int]) -> Iterator[list[int]]:
    """The largest value of a measure while the context is open, as the only item once it is left."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def run_load(kamera: Kamera, seconds: float) -> list[int]:
    """Eight clients at once, each through whole conversations. Returns how many answers each got.

    Every answer must be the one that a client alone gets, and the memory must stay within the bounds.
    """
    with serving(kamera, bounds=BOUNDS) as url, client_of(url).with_options(timeout=PATIENCE_S) as client:
        alone = [[*conversation(client, seed)] for seed in range(NUM_SCREENS)]
        end = time.monotonic() + seconds
        counts = [0] * NUM_CLIENTS

        def live(number: int) -> None:
            with client_of(url).with_options(timeout=PATIENCE_S) as own:
                for lap in count(number):
                    seed = lap % NUM_SCREENS
                    for said, expected in zip(conversation(own, seed), alone[seed], strict=True):
                        assert said == expected
                        counts[number] += 1
                        if time.monotonic() > end:
                            return

        with peak_of(lambda: kamera.stats().pool_bytes) as peak, ThreadPoolExecutor(NUM_CLIENTS) as pool:
            for done in [pool.submit(live, number) for number in range(NUM_CLIENTS)]:
                done.result()
        # Windows that are answered over are kept beyond the bound.
        assert peak[0] < 2 * WINDOW_BYTES
        assert kamera.stats().store.num_bytes <= STORE_BYTES
    return counts


def test_eight_clients(loaded: Kamera, awake: None) -> None:
    counts = run_load(loaded, 3)
    # Each waits for the seven others.
    assert min(counts) > 0
    assert max(counts) - min(counts) <= max(counts) // 2 + 2


@pytest.mark.torture
@pytest.mark.timeout(4 * LOAD_S)
def test_eight_clients_for_five_minutes(loaded: Kamera, awake: None) -> None:
    # By then the windows and the store are at their bounds.
    run_load(loaded, LOAD_S / 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = run_load(loaded, LOAD_S)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * MIB / 1024
    assert max(counts) - min(counts) <= max(counts) // 10


LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": QUESTION}],
    "stream": True,
    "max_tokens": 4000,
    "response_format": {"type": "json_object"},
}


def kill_one(url: str, number: int) -> None:
    """A client that has read the beginning of a stream, and then exists no more."""
    with posted(url, LONG | {"user": f"{number % 7}"}) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        # The head, the role, and as many pieces as come with them.
        for _ in range(1 + number % 3):
            client.recv(512)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_killings(kamera: Kamera, number: int) -> None:
    """Nothing of the clients is left: no thread, no descriptor, no window beyond the bound, no place in the server."""
    limits = Limits(max_conversations=3, max_bytes=WINDOW_BYTES, max_string=None)
    with serving(kamera, bounds=Bounds(num_answered=2, num_waiting=2, conversations=limits)) as url:
        with client_of(url) as client:
            client.models.list()
        threads, files = threading.active_count(), descriptors()
        for each in range(number):
            kill_one(url, each)
        end = time.monotonic() + 20
        while (threading.active_count() > threads or descriptors() > files) and time.monotonic() < end:
            time.sleep(0.05)
        assert threading.active_count() <= threads
        assert descriptors() <= files
        # Branches of three conversations.
        gc.collect()
        assert kamera.stats().num_windows <= 3 * 4
        with client_of(url) as client, ThreadPoolExecutor(4) as pool:
            messages: Any = [{"role": "user", "content": QUESTION}]
            asked = {"model": "pocket", "messages": messages, "max_tokens": 2}
            for reply in [pool.submit(client.chat.completions.create, **asked) for _ in range(4)]:
                assert reply.result(20).choices


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux lists them")
def test_killed_clients_leave_nothing(loaded: Kamera) -> None:
    run_killings(loaded, 10)


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_two_hundred_killed_clients_leave_nothing(loaded: Kamera) -> None:
    run_killings(loaded, NUM_KILLED)
