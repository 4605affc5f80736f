"""Stores of every kind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from servers import Server, make_bucket, s3_environment, start_redis, start_s3
from store_records import Clock

from kamera_agent.config import MIB
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.remote.address import open_shared
from kamera_agent.store.tiered import TieredStore

KEY = bytes(range(32))
MakeStore = Callable[..., Store]

OPEN: dict[str, Callable[[Path, int], Store]] = {
    "memory": lambda folder, cap_bytes: MemoryStore(cap_bytes),
    "lmdb": lambda folder, cap_bytes: LmdbStore(folder, cap_bytes),
    "encrypted": lambda folder, cap_bytes: LmdbStore(folder, cap_bytes, key=lambda: KEY),
    "tiered": lambda folder, cap_bytes: TieredStore(MemoryStore(cap_bytes // 4), LmdbStore(folder, cap_bytes)),
}


# Long enough for a busy machine: what a time-out does has tests of its own.
PATIENCE_S = 60.0
SHARED = ("redis", "redis encrypted", "objects", "s3")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    server = start_s3()
    make_bucket(server.port, "bucket")
    yield server
    server.kill()


@pytest.fixture
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The URL of a place of its own on a medium."""
    places = count()

    def url(kind: str) -> str:
        place = f"{tmp_path.name}-{next(places)}"
        if kind.startswith("redis"):
            return f"redis://127.0.0.1:{request.getfixturevalue('redis_server').port}/0?prefix={place}"
        if kind == "s3":
            for name, value in s3_environment(request.getfixturevalue("s3_server").port).items():
                monkeypatch.setenv(name, value)
            return f"s3://bucket/{place}"
        pytest.importorskip("obstore", reason="needs the extra objects")
        return (tmp_path / place).as_uri()

    return url


@pytest.fixture
def make_store_of(tmp_path: Path, shared_url: Callable[[str], str]) -> Iterator[Callable[[str], MakeStore]]:
    """Opens stores of one kind, each over its own folder or place, and closes them at the end."""
    opened: list[Store] = []

    def maker(kind: str) -> MakeStore:
        if "encrypted" in kind:
            pytest.importorskip("cryptography", reason="needs the extra encryption")

        def make(cap_bytes: int = 64 * MIB) -> Store:
            if kind in SHARED:
                key = (lambda: KEY) if "encrypted" in kind else None
                opened.append(open_shared(shared_url(kind), PATIENCE_S, key))
            else:
                opened.append(OPEN[kind](tmp_path / f"store{len(opened)}", cap_bytes))
            return opened[-1]

        return make

    yield maker
    for store in opened:
        store.close()


@pytest.fixture(params=[*OPEN, *SHARED])
def make_store(request: pytest.FixtureRequest, make_store_of: Callable[[str], MakeStore]) -> MakeStore:
    return make_store_of(request.param)


# A shared tier has no cap of its own.
@pytest.fixture(params=OPEN)
def make_capped(request: pytest.FixtureRequest, make_store_of: Callable[[str], MakeStore]) -> MakeStore:
    return make_store_of(request.param)


# Two tiers keep two lists of last uses: the upper one may still serve a record that the lower one evicted.
@pytest.fixture(params=["memory", "lmdb"])
def make_tier(request: pytest.FixtureRequest, make_store_of: Callable[[str], MakeStore]) -> MakeStore:
    return make_store_of(request.param)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()


@pytest.fixture
def forkserver() -> ForkServerContext:
    """Starts processes with the store already imported. A process has one server, and its first user sets it up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kamera_agent.store.lmdb_store"])
    return context


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of a store."""
    clock = Clock()
    monkeypatch.setattr("time.time_ns", clock)
    return clock
