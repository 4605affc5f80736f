"""Remembering what was computed: never in an answer's way, bounded, and over when the Kamera is closed."""

import threading
from collections.abc import Iterator

import pytest
from models import MakeKamera, screenshot

from kamera_agent import Kamera
from kamera_agent.runtime.engine import Engine
from kamera_agent.store.memory import MemoryStore
from kamera_agent.window.library import PATIENCE_S

NUM_CHUNKS = 20


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The worker of every Kamera made meanwhile waits for this event before each chunk."""
    opened, wait_idle = threading.Event(), Engine.wait_idle

    def wait(self: Engine, timeout_s: float) -> None:
        assert opened.wait(60)
        wait_idle(self, timeout_s)

    monkeypatch.setattr(Engine, "wait_idle", wait)
    yield opened
    opened.set()


def answer_over(kamera: Kamera, num_chunks: int) -> bool:
    """Whether a first answer over so many screenshots comes while the worker stands still."""
    window = kamera.window()
    for seed in range(num_chunks):
        window.add_image(screenshot(seed))
    answering = threading.Thread(target=window.generate, args=("what?",), kwargs={"max_new_tokens": 1}, daemon=True)
    answering.start()
    answering.join(30)
    return not answering.is_alive()


def num_bases(kamera: Kamera) -> int:
    return sum(header.kind == "base" for header in kamera.store.headers())


def test_an_answer_does_not_wait_for_the_worker(make: MakeKamera, gate: threading.Event) -> None:
    kamera = make()
    assert answer_over(kamera, NUM_CHUNKS)
    assert num_bases(kamera) == 0
    gate.set()
    kamera.flush()
    assert num_bases(kamera) == NUM_CHUNKS
    assert kamera.stats().skipped == 0


def test_an_answer_does_not_wait_for_a_patch(make: MakeKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that is being fitted stops between two layers, for a bounded time in all."""
    kamera = make(stale="compute", heal="never")
    window = kamera.window()
    ids = [window.add_image(screenshot(seed)) for seed in range(2)]
    window.logits("what?")
    kamera.flush()
    waits, stopped, opened = list[float](), threading.Event(), threading.Event()

    def wait(self: Engine, timeout_s: float) -> None:
        waits.append(timeout_s)
        if len(waits) == 3:
            stopped.set()
            assert opened.wait(60)

    monkeypatch.setattr(Engine, "wait_idle", wait)
    window.reorder(ids[::-1])
    window.logits("what?")
    assert stopped.wait(60)
    assert window.generate("and now?", max_tokens=1).usage.tokens_computed > 0
    assert len(kamera.store.headers()) == 2
    opened.set()
    kamera.flush()
    assert sorted(header.kind for header in kamera.store.headers()) == ["base", "base", "patch", "patch"]
    num_layers = len(kamera._engine.family.decoder.kinds)
    assert len(waits) == 2 * (1 + num_layers)
    for job in (waits[: 1 + num_layers], waits[1 + num_layers :]):
        assert job == sorted(job, reverse=True)
        assert job[0] == PATIENCE_S


@pytest.mark.parametrize("num_waiting", [1, 3])
def test_what_waits_is_bounded_in_bytes(make: MakeKamera, gate: threading.Event, num_waiting: int) -> None:
    """Room for some chunks, or for none: the others are counted, and remembered when they are computed again."""
    chunk_bytes = 26 * make()._engine.family.decoder.token_bytes
    kamera = make(store=MemoryStore(1 << 30), memory_bytes=num_waiting * chunk_bytes - (num_waiting == 1))
    assert answer_over(kamera, NUM_CHUNKS)
    gate.set()
    kamera.flush()
    assert num_bases(kamera) == num_waiting
    assert kamera.stats().skipped == NUM_CHUNKS - num_waiting
    again = kamera.window()
    again.add_image(screenshot(NUM_CHUNKS - 1))
    again.logits("what?")
    kamera.flush()
    assert num_bases(kamera) == num_waiting + 1


def test_a_closed_kamera_keeps_the_replies_that_had_begun(make: MakeKamera) -> None:
    """More of them than ever waited for the worker: each is read to its end, and none hangs."""
    kamera = make()
    streams = []
    for seed in range(NUM_CHUNKS):
        window = kamera.window()
        window.add_image(screenshot(seed))
        streams.append(window.stream("what?", max_new_tokens=4, temperature=1.0, seed=seed))
        next(streams[-1])
    closing = threading.Thread(target=kamera.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    replies: list[str] = []
    reading = threading.Thread(target=lambda: replies.extend(s.finish().text for s in streams), daemon=True)
    reading.start()
    reading.join(60)
    assert len(replies) == NUM_CHUNKS
    assert all(replies)


def test_bytes_written_are_those_of_the_window(make: MakeKamera) -> None:
    """Two windows of one Kamera: what one had written is not counted by the other, and by nobody twice."""
    kamera = make()
    seeing, talking = kamera.window(), kamera.window()
    seeing.add_image(screenshot(0))
    first = seeing.generate("what?", max_new_tokens=1)
    kamera.flush()
    others = [talking.generate("and you?", max_new_tokens=1).usage.bytes_written for _ in range(2)]
    ours = [seeing.generate("now?", max_new_tokens=1).usage.bytes_written for _ in range(2)]
    assert (first.usage.bytes_written, others) == (0, [0, 0])
    assert ours == [kamera.stats().store.bytes_written, 0]
    assert ours[0] > 0
