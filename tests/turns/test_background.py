"""Work in a thread of its own: what its reader gets, and when the work ends."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from kamera_agent.turns.background import aread, read

TIMEOUT = 20


def counting(stopped: threading.Event) -> Callable[[Callable[[], bool]], Iterator[int]]:
    """Work without an end, which sets `stopped` when it is cancelled."""

    def work(cancelled: Callable[[], bool]) -> Iterator[int]:
        number = 0
        while not cancelled():
            yield number
            number += 1
        stopped.set()

    return work


def failing(cancelled: Callable[[], bool]) -> Iterator[int]:
    yield 1
    raise ValueError("no more")


def ending(cancelled: Callable[[], bool]) -> Iterator[int]:
    yield 1
    raise GeneratorExit


async def test_a_reader_gets_the_items_the_error_and_the_end() -> None:
    assert [*read(lambda cancelled: range(3))] == [0, 1, 2]
    assert [item async for item in aread(lambda cancelled: range(3))] == [0, 1, 2]
    assert [*read(ending)] == [item async for item in aread(ending)] == [1]
    with pytest.raises(ValueError, match="no more"):
        list(read(failing))
    with pytest.raises(ValueError, match="no more"):
        _ = [item async for item in aread(failing)]


async def test_ctrl_c_while_the_thread_starts_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        if self.name == "kamera-answer":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    stopped = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        next(read(counting(stopped)))
    assert stopped.wait(TIMEOUT)
    stopped = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        await anext(aread(counting(stopped)))
    assert await asyncio.to_thread(stopped.wait, TIMEOUT)


async def test_a_reader_that_leaves_ends_the_work() -> None:
    for leave in ("close", "forget"):
        stopped = threading.Event()
        items = read(counting(stopped))
        assert next(items) == 0
        if leave == "close":
            items.close()
        del items
        assert stopped.wait(TIMEOUT)
    stopped = threading.Event()
    many = aread(counting(stopped))
    assert await anext(many) == 0
    await many.aclose()
    assert await asyncio.to_thread(stopped.wait, TIMEOUT)


async def test_the_end_of_the_work_is_told_and_not_that_of_the_reader() -> None:
    """Once: before a slow reader has read, after one that has left, and where there is no thread for the work."""
    told: asyncio.Queue[None] = asyncio.Queue()
    slow = aread(lambda cancelled: range(3), lambda: told.put_nowait(None))
    assert await anext(slow) == 0
    await asyncio.wait_for(told.get(), TIMEOUT)
    assert [item async for item in slow] == [1, 2]
    may_end = threading.Event()

    def work(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield 1
        assert may_end.wait(TIMEOUT)

    left = aread(work, lambda: told.put_nowait(None))
    assert await anext(left) == 1
    await left.aclose()
    assert told.empty()
    may_end.set()
    await asyncio.wait_for(told.get(), TIMEOUT)
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        none = aread(work, lambda: told.put_nowait(None))
        with pytest.raises(RuntimeError, match="new thread"):
            await anext(none)
    await asyncio.wait_for(told.get(), TIMEOUT)
    assert told.empty()


def test_work_ends_with_the_loop_of_its_reader() -> None:
    stopped = threading.Event()

    async def leave() -> None:
        items = aread(counting(stopped))
        await anext(items)
        kept.append(items)

    kept: list[object] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    assert stopped.wait(TIMEOUT)


async def test_work_does_not_wait_for_its_reader() -> None:
    done = threading.Event()

    def work(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield from range(100)
        done.set()

    items = read(work)
    assert next(items) == 0
    assert done.wait(TIMEOUT)
    assert [*items] == [*range(1, 100)]
