"""A tiny store of fixed content, and the files that keep it as each version of the format wrote it.

    python tests/store/golden_store.py

writes the files of the version that this tree has. Do that only after the version was raised: files of a version that
exists never change.

records-N.mdb.xz  the database of LMDB
records-N.json    its rows, by table, as hexadecimal keys and values

With -encrypted after N: the same records under KEY.
"""

from __future__ import annotations

import itertools
import json
import lzma
import tempfile
from pathlib import Path
from unittest.mock import patch

import lmdb
import torch

from kamera_agent.chunk import FORMAT_VERSION, Key, Record
from kamera_agent.secret import SecretSource
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

FOLDER = Path(__file__).parent / "golden"
NAME = f"records-{FORMAT_VERSION}"
ENCRYPTED = f"{NAME}-encrypted"
KEY = bytes(range(100, 132))
CAP_BYTES = 1 << 20
# 2026-11-28, in ns since 1970.
START_NS = 1_795_824_000_000_000_000

Rows = dict[str, dict[str, str]]


def records() -> list[Record]:
    """A base of two layers in two dtypes, its patch in int8 with a layer of rank 0, and a base without tensors."""
    count = torch.arange(24)
    whole = [
        [(count.reshape(2, 3, 4) / 8).to(torch.bfloat16), (count.reshape(2, 3, 4) / -8).to(torch.bfloat16)],
        [count.reshape(1, 3, 8).float(), torch.full((1, 3, 8), float("nan"))],
    ]
    seen = {"chunks": ["ab" * 32], "texts": ["cd" * 16], "chain": "ef" * 16, "exact": True}
    chunk = Key.of(kind="image", namespace="golden", shape=[720, 1280, 3])
    base = Record.of(chunk, chunk.digest, "base", whole, {**seen, "content": "00" * 32})
    thin = [
        [count[:6].reshape(3, 2).to(torch.int8), count[:16].reshape(2, 8).to(torch.int8), torch.tensor([0.5, 0.25])],
        [torch.empty(3, 0, dtype=torch.int8), torch.empty(0, 16, dtype=torch.int8), torch.empty(0)],
    ]
    key = Key.of(kind="patch", base=chunk.digest.hex())
    over = Record.of(key, chunk.digest, "patch", thin, {**seen, "error": float("inf"), "ranks": [2, 0]}, chunk.digest)
    empty = Key.of(kind="document", namespace="golden", note="no tensors \u00fc")
    return [base, over, Record.of(empty, empty.digest, "base", [])]


def write(folder: Path, key: SecretSource | None = None) -> None:
    """Write the store as of a day that never changes. Its records are used, and one is damaged and noted."""
    times = itertools.count(START_NS, 1_000_000_000)
    with patch("time.time_ns", lambda: next(times)), LmdbStore(folder, CAP_BYTES, key=key) as store:
        for record in records():
            store.put_many([record])
            store.flush()
        store.get_many([record.header.key for record in records()])
        store._writer.queue.quarantine(Key.of(kind="damaged").digest, "the header is missing")
        store.flush()
        # Last, because whoever looks whether a record has expired asks for the time.
        store.set_quota(CAP_BYTES // 2)
        store.set_ttl(10**9)


def rows(database: Path) -> Rows:
    """All rows of a database, by table."""
    with lmdb.open(str(database), subdir=False, readonly=True, lock=False, max_dbs=32) as opened:
        with opened.begin() as txn:
            names = [bytes(name) for name, _ in txn.cursor()]
        tables = {name.decode(): opened.open_db(name, create=False) for name in names}
        with opened.begin() as txn:
            return {
                name: {key.hex(): value.hex() for key, value in txn.cursor(table)} for name, table in tables.items()
            }


def main() -> None:
    for name, key in ((NAME, None), (ENCRYPTED, lambda: KEY)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), key)
            database = Path(folder, DATABASE)
            FOLDER.joinpath(f"{name}.json").write_text(json.dumps(rows(database), indent=1) + "\n", "utf-8")
            FOLDER.joinpath(f"{name}.mdb.xz").write_bytes(lzma.compress(database.read_bytes(), preset=9))


if __name__ == "__main__":
    main()
