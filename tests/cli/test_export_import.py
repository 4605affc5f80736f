"""kamera export and kamera import: from one store to another, and nothing from a file that is not whole."""

import io
import json
import stat
from pathlib import Path

import pytest
from blake3 import blake3
from cli_records import RunKamera, page, patch

from kamera_agent.chunk import Key, Record
from kamera_agent.store.archive import write_archive
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore


@pytest.fixture
def archive(folder: Path, run_kamera: RunKamera) -> Path:
    done = run_kamera("export", folder.parent / "chunks.kamera", folder)
    assert (done.exit_code, done.stderr) == (0, "")
    return folder.parent / "chunks.kamera"


def listed(folder: Path, run_kamera: RunKamera) -> list[object]:
    """What does not depend on the time."""
    chunks = json.loads(run_kamera("ls", folder, "--json").stdout)
    return [
        [chunk["digest"], chunk["facts"], [{**r, "stored": 0, "used": 0, "hits": 0} for r in chunk["records"]]]
        for chunk in chunks
    ]


def test_a_store_goes_to_another_machine(folder: Path, archive: Path, run_kamera: RunKamera) -> None:
    """The records are equal bit for bit, and the first store is as it was: nothing counts as used."""
    other = folder.parent / "other"
    done = run_kamera("import", archive, other)
    assert done.exit_code == 0
    assert done.stdout.startswith("4 records were imported, and 0 others removed; the store holds 4 records, ")
    assert listed(other, run_kamera) == listed(folder, run_kamera)
    with LmdbStore(folder) as here, LmdbStore(other) as there:
        left, right = ({r.header.key: r for r in store.records(store.headers())} for store in (here, there))
        assert len(left) == 4
        assert left.keys() == right.keys()
        for key, record in left.items():
            assert record.header == right[key].header
            layers = zip(record.layers, right[key].layers, strict=True)
            assert all(a.tolist() == b.tolist() for ours, theirs in layers for a, b in zip(ours, theirs, strict=True))
        assert {entry.hits for entry in here.entries().values()} == {0}
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert [path.name for path in archive.parent.iterdir() if path.name.startswith(".")] == []


def test_one_namespace(folder: Path, run_kamera: RunKamera) -> None:
    archive, other = folder.parent / "team", folder.parent / "other"
    done = run_kamera("export", archive, folder, "--namespace", "team", "--json")
    assert json.loads(done.stdout) == {"archive": str(archive), "num_records": 1, "num_bytes": archive.stat().st_size}
    done = run_kamera("import", archive, other, "--json")
    assert json.loads(done.stdout) == {"store": str(other), "num_records": 1, "evictions": 0}
    assert [chunk["facts"]["namespace"] for chunk in json.loads(run_kamera("ls", other, "--json").stdout)] == ["team"]


def test_importing_twice_changes_nothing(folder: Path, archive: Path, run_kamera: RunKamera) -> None:
    before = listed(folder, run_kamera)
    assert run_kamera("import", archive, folder).exit_code == 0
    assert listed(folder, run_kamera) == before


def test_a_damaged_archive_changes_no_store_and_makes_none(folder: Path, archive: Path, run_kamera: RunKamera) -> None:
    """Its last record is damaged; the others are whole, and none is imported."""
    data = bytearray(archive.read_bytes())
    data[-50] ^= 1
    archive.write_bytes(data)
    before = (folder / DATABASE).read_bytes()
    for store in (folder, folder.parent / "new"):
        done = run_kamera("import", archive, store)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("kamera: ")
        assert done.stderr.count("\n") == 1
    assert (folder / DATABASE).read_bytes() == before
    assert not (folder.parent / "new").exists()


def strange(key: Key | None = None, **attributes: object) -> Record:
    plain = page("strange")
    key, changed = key or plain.header.key, {**plain.header.attributes, **attributes}
    return Record.of(key, key.digest, "base", plain.layers, changed)


def keyed(material: str) -> Record:
    return strange(Key(blake3(material.encode()).digest(), material))


def facts(**changes: object) -> Record:
    return strange(Key.of(**{**json.loads(page("strange").header.key.material), **changes}))


@pytest.mark.parametrize(
    ("records", "part"),
    [
        ([strange(chain="..")], "attributes"),
        ([strange(chunks="ab")], "attributes"),
        ([strange(more=1)], "attributes"),
        ([strange(exact=1)], "attributes"),
        ([strange(**{"\x1b[2J": 1})], "attributes"),
        ([page("first"), patch(page("first").header.chunk, (4, 2), float("inf"))], "attributes"),
        ([keyed("[" * 100_000)], "key"),
        ([keyed("[]")], "key"),
        ([keyed("")], "key"),
        ([facts(model=5)], "key"),
        ([facts(shape=["x"])], "key"),
        ([facts(namespace=None)], "key"),
        ([facts(format=2)], "key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_this_package_did_not_write_is_refused(
    records: list[Record], part: str, folder: Path, run_kamera: RunKamera
) -> None:
    """It would fail in the answer, or the command, that reads it."""
    file = io.BytesIO()
    write_archive(file, records)
    (folder.parent / "strange").write_bytes(file.getvalue())
    done = run_kamera("import", folder.parent / "strange", folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"its {part} has wrong parts" in done.stderr
    assert "\x1b" not in done.stderr
    assert json.loads(run_kamera("stats", folder, "--json").stdout)["num_records"] == 4


def test_names_of_strangers_give_no_commands_to_a_terminal(folder: Path, run_kamera: RunKamera) -> None:
    """An escape sequence in the name of a namespace, which any archive may hold."""
    file = io.BytesIO()
    record = facts(namespace="a\x1b]0;b\x07\nc\u202ed")
    write_archive(file, [record])
    (folder.parent / "strange").write_bytes(file.getvalue())
    assert run_kamera("import", folder.parent / "strange", folder).exit_code == 0
    for command in (["ls", folder], ["show", record.header.key.digest.hex(), folder]):
        done = run_kamera(*command)
        assert done.exit_code == 0
        assert "a\ufffd]0;b\ufffd\ufffdc\ufffdd" in done.stdout


def test_an_archive_above_the_cap_is_refused(folder: Path, archive: Path, run_kamera: RunKamera) -> None:
    with LmdbStore(folder.parent / "small", 8192):
        pass
    done = run_kamera("import", archive, folder.parent / "small")
    assert done.exit_code == 1
    assert "The archive takes 16.4 kB, and the store may hold 8.2 kB" in done.stderr


def test_a_place_that_cannot_be_written_is_an_error(folder: Path, run_kamera: RunKamera) -> None:
    done = run_kamera("export", folder, folder)
    assert done.exit_code == 1
    assert "is a folder" in done.stderr
