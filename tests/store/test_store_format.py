"""The format on disk, against files that were written when its version was new. docs/store-format.md describes it."""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import fields
from pathlib import Path

import pytest
from blake3 import blake3
from golden_store import CAP_BYTES, ENCRYPTED, FOLDER, KEY, NAME, START_NS, records, rows, write
from store_records import make_record

from benchmarks.torture.records import same
from kamera_agent.chunk import FORMAT_VERSION
from kamera_agent.store.entry import Entry
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.manifest import Manifest
from kamera_agent.store.tables import Tables

PAGE = (Path(__file__).parents[2] / "docs" / "store-format.md").read_text("utf-8")
ADVICE = f"The format changed without a new version: raise FORMAT_VERSION, and have {NAME} made by golden_store.py."


def unpack(name: str, folder: Path) -> Path:
    """The golden database of a name, in a folder."""
    database = folder / f"{name}.mdb"
    database.write_bytes(lzma.decompress((FOLDER / f"{name}.mdb.xz").read_bytes()))
    return database


def test_todays_reader_reads_every_byte_of_the_golden_store(tmp_path: Path) -> None:
    assert (FOLDER / f"{NAME}.mdb.xz").is_file(), ADVICE
    assert unpack(NAME, tmp_path).name == DATABASE
    with LmdbStore(tmp_path) as store:
        assert store.check().problems == ()
        assert store.stats().cap_bytes == CAP_BYTES
        found = store.get_many([record.header.key for record in records()])
        assert all(same(found[record.header.key.digest], record) for record in records()), ADVICE
        assert len(found) == len(records())


def test_todays_writer_writes_the_rows_of_the_golden_store(tmp_path: Path) -> None:
    write(tmp_path)
    written, golden = rows(tmp_path / DATABASE), json.loads((FOLDER / f"{NAME}.json").read_text("utf-8"))
    assert written == golden, ADVICE
    assert golden == rows(unpack(NAME, tmp_path))


def test_the_encrypted_golden_store(tmp_path: Path) -> None:
    """The rows say nothing that depends on chance, so they are written alike, and read back."""
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    (tmp_path / "new").mkdir()
    write(tmp_path / "new", lambda: KEY)
    assert rows(tmp_path / "new" / DATABASE) == json.loads((FOLDER / f"{ENCRYPTED}.json").read_text("utf-8")), ADVICE
    unpack(ENCRYPTED, tmp_path).rename(tmp_path / DATABASE)
    with LmdbStore(tmp_path, key=lambda: KEY) as store:
        found = store.get_many([record.header.key for record in records()])
        assert all(same(found[record.header.key.digest], record) for record in records()), ADVICE


def test_entries_of_the_golden_store() -> None:
    """The numbers of the documents, unpacked by hand."""
    entries = json.loads((FOLDER / f"{NAME}.json").read_text("utf-8"))["entries"]
    base, over, _ = records()
    packed = bytes.fromhex(entries[over.header.key.digest.hex()])
    numbers = [int.from_bytes(packed[start : start + 8], "big") for start in (0, 8, 16, 24)]
    assert numbers[1:] == [4096, numbers[2], 1]
    assert START_NS < numbers[2] < numbers[0] < START_NS + 60 * 10**9
    assert packed[32:48] == blake3(b"golden").digest(16)
    assert packed[48:] == 2 * base.header.key.digest
    assert Entry.unpack(memoryview(packed)).pack() == packed


@pytest.mark.parametrize(
    "name", [path.name.removesuffix(".mdb.xz") for path in sorted(FOLDER.glob("records-?.mdb.xz"))]
)
def test_a_file_of_another_version_stays_as_it_is(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = unpack(name, tmp_path)
    before = database.read_bytes()
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many([make_record("r")])
        store.flush()
        assert store.stats().num_records == 1 + (len(records()) if name == NAME else 0)
    assert (database.read_bytes() == before) == (name != NAME)
    assert (f"{database} holds chunks in an older format" in caplog.text) == (name != NAME)


def test_a_file_of_a_later_version_stays_as_it_is(tmp_path: Path) -> None:
    later = tmp_path / f"records-{FORMAT_VERSION + 1}.mdb"
    later.write_bytes(b"of the future")
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many([make_record("r")])
        assert store.check().num_records == 1
    assert later.read_bytes() == b"of the future"


def test_the_page_names_every_table_and_every_field_of_a_header() -> None:
    names = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
    assert {field.name for field in fields(Tables)} | set(Manifest.model_fields) <= names
    assert f"version {FORMAT_VERSION}" in PAGE
    assert f"`{DATABASE}`" in PAGE
