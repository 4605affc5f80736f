"""Writing and reading one chunk on shared tiers, beside the disk tier; and what a look at the chunks of a turn takes.

    python -m benchmarks.shared --json

Each round takes every measurement once, in rotating order, so a busy machine slows all of them alike. The figures are
medians over the rounds. Server and client are on this machine: the network is the loopback device.

lmdb    the disk tier
redis   a redis-server without persistence, on a port of this machine; left out where there is none
folder  object storage over a folder (file://), on the same disk as the disk tier
s3      moto's server, which is written in Python: its rate is that of the server; left out where it is not installed

put   put_many() and flush() of a record that is not there: encode, checksum, write
get   get_many(): read, copy into fresh tensors, verify every checksum
look  expect() and headers() of 8 chunks with a base each, none of which was listed lately
turn  get_many() of 4 such records: each part is read while the next ones are fetched
whole the same where nothing is read before all is fetched; overlap is the median over the rounds of its time over that
      of turn. The disk tier does the same in both, so its overlap shows how much the machine disturbs the others
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.command import parser_of
from kamera_agent.chunk import Key, Record
from kamera_agent.config import MIB
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.remote.address import open_shared
from kamera_agent.store.remote.store import RemoteStore
from kamera_agent.store.speed import (
    HEAD_DIM,
    NUM_KV_HEADS,
    NUM_LAYERS,
    NUM_TOKENS,
    make_base,
    make_layers,
    seconds_of,
)

NUM_CHUNKS = 8
# No time-out: a busy machine must not turn a measurement into a miss.
PATIENCE_S = 60.0
STEPS = ("put", "get", "look", "turn", "whole")
NUM_OF_TURN = 4
# More than a turn reads: all of it comes in one load.
ENDLESS = 1 << 62


@contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server on a port of this machine, once it takes connections."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def open_tiers(folder: Path, stack: ExitStack) -> dict[str, Store]:
    """The stores that can be measured here, by name; the stack closes them."""
    stores: dict[str, Store] = {"lmdb": LmdbStore(folder / "lmdb", cap_bytes=1024 * MIB)}
    if (program := shutil.which("redis-server")) and find_spec("redis"):
        port = free_port()
        stack.enter_context(server([program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], port))
        stores["redis"] = open_shared(f"redis://127.0.0.1:{port}/0", PATIENCE_S)
    if find_spec("obstore"):
        stores["folder"] = open_shared((folder / "objects").as_uri(), PATIENCE_S)
    if find_spec("obstore") and find_spec("moto"):
        port = free_port()
        stack.enter_context(server([sys.executable, "-m", "moto.server", "-p", str(port)], port))
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")).close()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        stores["s3"] = open_shared("s3://bucket/benchmark", PATIENCE_S)
    for store in stores.values():
        stack.callback(store.close)
    return stores


def small_record(number: int) -> Record:
    key = Key.of(benchmark="shared", number=number)
    return Record.of(key, key.digest, "base", [[torch.zeros(16)]], {"texts": ["0" * 32] * 40})


class Tier:
    """The steps on one store."""

    def __init__(self, name: str, store: Store, record: Record) -> None:
        self.name, self._store, self._record = name, store, record
        self._small = [small_record(number) for number in range(NUM_CHUNKS)]
        keys = [Key.of(benchmark="shared", turn=number) for number in range(NUM_OF_TURN)]
        self._turn = [Record.of(key, key.digest, "base", record.layers) for key in keys]
        store.put_many([*self._small, *self._turn])
        store.flush()

    def prepare(self, step: str) -> None:
        """What comes before a step, and is not measured."""
        if step == "put":
            self._store.delete([self._record.header.key])
        elif step == "look":
            # Written anew, so that no listing is remembered.
            self._store.put_many(self._small)
        self._store.flush()

    def put(self) -> None:
        self._store.put_many([self._record])
        self._store.flush()

    def get(self) -> object:
        found = self._store.get_many([self._record.header.key])
        assert found, f"{self.name} lost the record"
        return found

    def turn(self) -> object:
        found = self._store.get_many([record.header.key for record in self._turn])
        assert len(found) == NUM_OF_TURN, f"{self.name} lost a record"
        return found

    def whole(self) -> object:
        if not isinstance(self._store, RemoteStore):
            return self.turn()
        medium = self._store._medium
        usual, medium.load_bytes = medium.load_bytes, ENDLESS
        try:
            return self.turn()
        finally:
            medium.load_bytes = usual

    def look(self) -> object:
        self._store.expect([record.header.chunk for record in self._small])
        return [self._store.headers(record.header.chunk) for record in self._small]


def measure(tiers: list[Tier], num_rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of every step of every tier, and the overlap, after a round of warm-up."""
    times = {tier.name: {step: list[float]() for step in STEPS} for tier in tiers}
    for number in range(num_rounds + 1):
        for tier in tiers[number % len(tiers) :] + tiers[: number % len(tiers)]:
            # The two that are compared take turns in being first.
            for step in (*STEPS[:3], *(STEPS[3:] if number % 2 else STEPS[:2:-1])):
                tier.prepare(step)
                call: Callable[[], object] = getattr(tier, step)
                times[tier.name][step].append(seconds_of(call))
    return {name: _medians({step: seconds[1:] for step, seconds in steps.items()}) for name, steps in times.items()}


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the rounds. times: by step, of each round."""
    ratios = [whole / turn for whole, turn in zip(times["whole"], times["turn"], strict=True)]
    return {step: statistics.median(seconds) for step, seconds in times.items()} | {
        "overlap": statistics.median(ratios)
    }


def report(medians: dict[str, dict[str, float]], num_bytes: int, num_rounds: int) -> dict[str, object]:
    """Rates in MB/s (10^6 bytes per second), milliseconds of a look, and the conditions."""
    rates = {
        name: {
            "put_mbps": round(num_bytes / steps["put"] / 1e6),
            "get_mbps": round(num_bytes / steps["get"] / 1e6),
            "look_ms": round(1e3 * steps["look"], 2),
            "turn_mbps": round(NUM_OF_TURN * num_bytes / steps["turn"] / 1e6),
            "overlap": round(steps["overlap"], 3),
        }
        for name, steps in medians.items()
    }
    return {
        **rates,
        "conditions": {
            "shape": [NUM_LAYERS, 2, NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM],
            "bytes": num_bytes,
            "chunks_of_a_look": NUM_CHUNKS,
            "chunks_of_a_turn": NUM_OF_TURN,
            "dtype": "float32",
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "rounds": num_rounds,
            "torch": torch.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        },
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds, at least 5 (default 9)")
    args = parser.parse_args()
    num_rounds, record = max(5, args.rounds), make_base("store", make_layers(0, torch.float32))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stores = open_tiers(Path(folder), stack)
        tiers = [Tier(name, store, record) for name, store in stores.items()]
        result = report(measure(tiers, num_rounds), record.header.num_bytes, num_rounds)
    print(f"one chunk of {NUM_TOKENS} tokens, {record.header.num_bytes / 1e6:.1f} MB, float32; loopback network")
    for tier in tiers:
        row = result[tier.name]
        print(f"{tier.name:>8}  {row}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
