"""Work that may end its process: it is done in children, from a forkserver that has the store imported."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic

from benchmarks.torture.figures import Figures

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["kamera_agent.store.lmdb_store", "benchmarks.torture.records"])
# Of one piece of work, before it counts as a hang.
PATIENCE_S = 60.0


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, if there is one: what a killed process wrote is there either way."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def quiet() -> None:
    """Have the store's warnings not printed: they are expected, a thousand times."""
    logging.getLogger("kamera_agent").addHandler(logging.NullHandler())
    logging.getLogger("kamera_agent").propagate = False


def in_children(work: Callable[[Path, int], Figures], numbers: Sequence[int], folder: Path) -> Figures:
    """The sum of work(folder of the child, number) over all numbers, in as many children as there are processors.

    A child that ends counts as one of `deaths`, and is replaced; one that takes too long as one of `hangs`.
    """
    sums, rest = Figures(), iter(numbers)
    crew: dict[Connection, _Child] = {}
    names = iter(range(1 << 30))

    def go_on(child: _Child) -> None:
        if (number := next(rest, None)) is not None:
            child.start(number)
            crew[child.pipe] = child
        else:
            child.end()

    for _ in range(min(len(numbers), os.cpu_count() or 1)):
        go_on(_Child(work, folder / f"child{next(names)}"))
    while crew:
        for pipe in wait(list(crew), timeout=1.0):
            child = crew.pop(pipe)  # type: ignore[call-overload]
            try:
                sums += pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                sums += Figures(deaths=1)
                print(f"number {child.number} ended its process", file=sys.stderr, flush=True)
                child = _Child(work, folder / f"child{next(names)}")
            go_on(child)
        for child in [child for child in crew.values() if child.is_late]:
            del crew[child.pipe]
            child.kill()
            sums += Figures(hangs=1)
            print(f"number {child.number} hangs", file=sys.stderr, flush=True)
            go_on(_Child(work, folder / f"child{next(names)}"))
    return sums


class _Child:
    """A process that does one piece of work after the other."""

    def __init__(self, work: Callable[[Path, int], Figures], folder: Path) -> None:
        folder.mkdir()
        self.pipe, theirs = CONTEXT.Pipe()
        self._process: ForkServerProcess = CONTEXT.Process(target=_work, args=(work, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.number = -1

    def start(self, number: int) -> None:
        self.number, self._due = number, monotonic() + PATIENCE_S
        self.pipe.send(number)

    @property
    def is_late(self) -> bool:
        return monotonic() > self._due

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self) -> None:
        self.pipe.close()
        self._process.join()


def _work(work: Callable[[Path, int], Figures], folder: Path, pipe: Connection) -> None:
    quiet()
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        pipe.send(work(folder, number))
