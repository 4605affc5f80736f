"""Traffic over a shared store whose server is killed, and whose network is slow."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Proxy, Server, make_bucket, s3_environment, start_redis, start_s3

from benchmarks.torture.records import genuine, make_key, versioned_record
from kamera_agent.store.base import Store
from kamera_agent.store.remote import wire
from kamera_agent.store.remote.address import open_shared

NAMES = [f"r{i}" for i in range(6)] + [f"r{i}/p" for i in range(6)]
NUM_MACHINES = 2

_log = logging.getLogger("kamera_agent.tests")


@pytest.fixture(params=["redis", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[Server]:
    server = start_redis(tmp_path) if kind == "redis" else start_s3()
    yield server
    server.kill()


class Traffic:
    """Machines that write and read versions of records, each in its thread, and what they saw."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.seen = Counter[str]()
        self.wrong: list[str] = []
        self.errors: list[Exception] = []
        self._over = threading.Event()
        self._stores = [open_shared(url, timeout_s) for _ in range(NUM_MACHINES)]
        self._threads = [threading.Thread(target=self._run, args=each) for each in enumerate(self._stores)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for store in self._stores:
            store.close()

    def come_back(self) -> bool:
        """Whether records are served again."""
        served, end = self.seen["served"], time.monotonic() + 60
        while self.seen["served"] == served and time.monotonic() < end and not self.errors:
            time.sleep(0.05)
        return self.seen["served"] > served

    def _run(self, seed: int, store: Store) -> None:
        rng = random.Random(seed)
        try:
            while not self._over.is_set():
                self._step(store, rng)
        except Exception as error:  # noqa: BLE001 - whatever it was, the main thread shall see it
            self.errors.append(error)

    def _step(self, store: Store, rng: random.Random) -> None:
        name = rng.choice(NAMES)
        if rng.random() < 0.3:
            store.put_many([versioned_record(name, rng.randrange(1000))])
        elif rng.random() < 0.05:
            store.delete([make_key(name)])
        else:
            store.expect([make_key(name.partition("/")[0]).digest])
            for header in store.headers(make_key(name.partition("/")[0]).digest):
                for record in store.get_many([header.key]).values():
                    (found,) = [each for each in NAMES if make_key(each) == header.key]
                    self.seen["served"] += 1
                    self.wrong += [] if genuine(found, record) else [found]
        self.seen["steps"] += 1


@pytest.mark.parametrize("num_kills", [5, pytest.param(200, marks=[pytest.mark.torture, pytest.mark.timeout(6000)])])
def test_a_server_that_is_killed_in_traffic_serves_no_wrong_byte(
    server: Server, kind: str, num_kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "REST_S", 0.05)
    url = f"redis://127.0.0.1:{server.port}/0"
    if kind == "s3":
        for name, value in s3_environment(server.port).items():
            monkeypatch.setenv(name, value)
        url = "s3://bucket/kills"
        make_bucket(server.port, "bucket")
    rng = random.Random(0)
    traffic = Traffic(url, timeout_s=2.0)
    for _ in range(num_kills):
        time.sleep(rng.uniform(0.1, 0.5))
        server.kill()
        time.sleep(rng.uniform(0.0, 0.2))
        server.start()
        if kind == "s3":
            make_bucket(server.port, "bucket")
    is_back = traffic.come_back()
    traffic.end()
    _log.info("%d kills of %s: %s", num_kills, kind, dict(traffic.seen))
    assert (traffic.errors, traffic.wrong) == ([], [])
    assert is_back


def test_a_slow_network_that_cuts_serves_no_wrong_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of an answer is late, and every other connection is cut somewhere in the middle of one."""
    monkeypatch.setattr(wire, "REST_S", 0.05)
    server = start_redis(tmp_path)
    proxy, rng = Proxy(server.port), random.Random(1)
    traffic = Traffic(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=0.1)
    for _ in range(30):
        proxy.delay_s = rng.choice([0.0, 0.001, 0.02])
        proxy.cut_after = rng.choice([None, 10, 1000, 10_000, 50_000])
        time.sleep(0.1)
    proxy.delay_s, proxy.cut_after = 0.0, None
    is_back = traffic.come_back()
    traffic.end()
    proxy.close()
    server.kill()
    assert (traffic.errors, traffic.wrong) == ([], [])
    assert is_back
