"""Stores of every kind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from kamera_agent.config import MIB
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.tiered import TieredStore

KEY = bytes(range(32))
MakeStore = Callable[..., Store]

OPEN: dict[str, Callable[[Path, int], Store]] = {
    "memory": lambda folder, cap_bytes: MemoryStore(cap_bytes),
    "lmdb": lambda folder, cap_bytes: LmdbStore(folder, cap_bytes),
    "encrypted": lambda folder, cap_bytes: LmdbStore(folder, cap_bytes, key=lambda: KEY),
    "tiered": lambda folder, cap_bytes: TieredStore(MemoryStore(cap_bytes // 4), LmdbStore(folder, cap_bytes)),
}


def maker(kind: str, folder: Path) -> Iterator[MakeStore]:
    """Opens stores of one kind, each over its own folder, and closes them at the end."""
    if kind == "encrypted":
        pytest.importorskip("cryptography", reason="needs the extra encryption")
    opened: list[Store] = []

    def make(cap_bytes: int = 64 * MIB) -> Store:
        opened.append(OPEN[kind](folder / f"store{len(opened)}", cap_bytes))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture(params=OPEN)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    yield from maker(request.param, tmp_path)


# Two tiers keep two lists of last uses: the upper one may still serve a record that the lower one evicted.
@pytest.fixture(params=["memory", "lmdb"])
def make_tier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    yield from maker(request.param, tmp_path)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


@pytest.fixture
def forkserver() -> ForkServerContext:
    """Starts processes with the store already imported. A process has one server, and its first user sets it up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kamera_agent.store.lmdb_store"])
    return context
