"""A damaged database costs its content, and neither the process nor its next start."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from store_records import KIB, record_of_bytes

from benchmarks.torture.records import bits, genuine, make_key, versioned_record
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store import environment
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.inspection import Seal, find_faults
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.tree import sum_of_tree

CAP_BYTES = 600 * KIB
PAGE = 4096
NAMES = [f"r{i}{patch}" for i in range(12) for patch in ("", "/p")]
SEAL, DAMAGED = (Path(DATABASE).with_suffix(suffix).name for suffix in (".seal", ".damaged"))


def fill(folder: Path) -> None:
    """Records put, replaced and deleted, so that there are free pages, too."""
    rng = random.Random(0)
    with LmdbStore(folder, CAP_BYTES) as store:
        for _ in range(8):
            store.put_many(versioned_record(rng.choice(NAMES), rng.randrange(1000)) for _ in range(12))
            store.delete([make_key(rng.choice(NAMES))])
            store.flush()


def garbage(data: bytes) -> bytes:
    return bytes(range(256)) * 100


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def stump(data: bytes) -> bytes:
    return data[:100]


def nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [garbage, half, stump, nothing])
def test_a_damaged_database_is_kept_said_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    for _ in range(2):
        fill(tmp_path)
        damaged = spoil((tmp_path / DATABASE).read_bytes())
        (tmp_path / DATABASE).write_bytes(damaged)
        caplog.clear()
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            assert len(store.check().problems) > 0
            assert store.stats().num_records == 0
        assert (tmp_path / DAMAGED).read_bytes() == damaged
        assert len(caplog.records) == 1
        assert f"is kept as {tmp_path / DAMAGED}" in caplog.text
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            assert store.check().problems == ()


LARGE = record_of_bytes("large", 100 * KIB)


@pytest.mark.parametrize("num_bytes", [PAGE, PAGE + 1, 5 * PAGE])
def test_values_that_were_cut_off_the_end_are_missed_and_reported(
    tmp_path: Path, forkserver: ForkServerContext, num_bytes: int
) -> None:
    """1. A large value is at the end of the file, as the pages of the tree found room before it. 2. It is cut off."""
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        for version in range(8):
            store.put_many([versioned_record("r", version)])
            store.flush()
        store.put_many([LARGE])
    data = (tmp_path / DATABASE).read_bytes()
    assert bits(LARGE)[0][2].endswith(data[-PAGE:].rstrip(b"\0"))
    os.truncate(tmp_path / DATABASE, len(data) - num_bytes)
    # In a process of its own, which a page beyond the end of the file would end.
    child = forkserver.Process(target=miss_large, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0


def miss_large(folder: Path) -> None:
    with LmdbStore(folder) as store:
        assert store.get_many([LARGE.header.key]) == {}
        assert store.stats().quarantined + len(store.check().problems) > 0
    with LmdbStore(folder) as store:
        store.put_many([LARGE])
        assert store.check().problems == ()


def test_a_process_that_was_killed_before_the_first_page_leaves_no_damage(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        assert store.check().problems == ()
    assert not (tmp_path / DAMAGED).exists()


def test_a_branch_that_leads_astray_is_a_damage(tmp_path: Path) -> None:
    """In some branch page, each key but the first is replaced by one that is greater and still in order."""
    fill(tmp_path)
    data, num_found = bytearray((tmp_path / DATABASE).read_bytes()), 0
    for page in range(2, len(data) // PAGE):
        start = page * PAGE
        number, flags, lower = struct.unpack_from("<Q2xHH", data, start)
        if (number, flags) != (page, 1):
            continue
        places = struct.unpack_from(f"<{(lower - 16) // 2}H", data, start + 16)
        for place in places[1:]:
            data[start + place + 8 + 1] = 0xFF
            num_found += 1
    assert num_found
    (tmp_path / DATABASE).write_bytes(data)
    with LmdbStore(tmp_path) as store:
        assert any("are not found by their keys" in problem for problem in store.check().problems)
    with LmdbStore(tmp_path) as store:
        assert store.check().problems == ()


def row_of_no_record(store: LmdbStore) -> None:
    tables = store._database.tables
    store._database.write(lambda txn: txn.put(make_key("other").digest + bytes(4), b"stub", db=tables.values))


def row_of_another_name(store: LmdbStore) -> None:
    """As a flipped bit leaves it. An encrypted store that lacks the row of its key would seem to be in the clear."""
    tables = store._database.tables
    store._database.write(lambda txn: txn.put(b"kex", bytes(32), db=tables.totals))


def wrong_total(store: LmdbStore) -> None:
    store._database.write(lambda txn: store._database.tables.add_bytes(txn, bytes(16), 1))


def stub_of_an_entry(store: LmdbStore) -> None:
    tables = store._database.tables
    store._database.write(lambda txn: txn.put(make_key("other").digest, b"stub", db=tables.entries))


def stub_of_a_cap(store: LmdbStore) -> None:
    tables = store._database.tables
    store._database.write(lambda txn: txn.put(b"cap", b"stub", db=tables.totals))


@pytest.mark.parametrize(
    "contradict", [wrong_total, stub_of_an_entry, stub_of_a_cap, row_of_no_record, row_of_another_name]
)
@pytest.mark.parametrize("is_sealed", [False, True])
def test_tables_that_contradict_each_other_are_a_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contradict: Callable[[LmdbStore], None], is_sealed: bool
) -> None:
    """A sealed store is opened all the same, unless nothing can be done with it."""
    monkeypatch.setattr(environment, "INSPECTED_BYTES", 0)
    fill(tmp_path)
    with LmdbStore(tmp_path) as store:
        contradict(store)
        if contradict is wrong_total:
            assert any("total" in problem for problem in store.check().problems)
    if not is_sealed:
        (tmp_path / SEAL).unlink(missing_ok=True)
    with LmdbStore(tmp_path) as store:
        was_moved = (tmp_path / DAMAGED).exists()
        assert was_moved or (is_sealed and contradict is not stub_of_a_cap)
        store.put_many([versioned_record("new", 1)])
        store.flush()
        if was_moved:
            assert store.check().num_records == 1


def test_a_large_store_is_inspected_unless_it_was_closed_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "INSPECTED_BYTES", 0)
    inspected: list[Path] = []
    monkeypatch.setattr("kamera_agent.store.environment.find_faults", lambda database: inspected.append(database) or [])

    def opened() -> int:
        LmdbStore(tmp_path).close()
        num_inspected = len(inspected)
        inspected.clear()
        return num_inspected

    fill(tmp_path)
    assert opened() == 0
    os.utime(tmp_path / DATABASE)
    assert opened() == 1
    (tmp_path / SEAL).unlink()
    assert opened() == 1
    shutil.copytree(tmp_path, tmp_path / "copy")
    LmdbStore(tmp_path / "copy").close()
    assert inspected == [tmp_path / "copy" / DATABASE]
    inspected.clear()
    assert opened() == 0
    monkeypatch.setattr(environment, "INSPECTED_BYTES", 1 << 30)
    assert opened() == 1


def rot(database: Path, offset: int) -> None:
    """Flip a bit in place. Size, time and inode stay as they were."""
    before = database.stat()
    with database.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(bytes([old[0] ^ 1]))
    os.utime(database, ns=(before.st_atime_ns, before.st_mtime_ns))


def tree_pages(database: Path) -> list[int]:
    """The pages in use of branches and leaves: the verifier finds a fault when their own number is another."""
    data, pages = database.read_bytes(), []
    for page in range(2, len(data) // PAGE):
        number, flags = struct.unpack_from("<Q2xH", data, page * PAGE)
        if (number, flags in (1, 2)) == (page, True):
            rot(database, page * PAGE)
            pages += [page] if find_faults(database) else []
            rot(database, page * PAGE)
    return pages


def test_a_tree_that_rotted_in_a_large_store_is_found_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seal says size and time, and these are as they were."""
    monkeypatch.setattr(environment, "INSPECTED_BYTES", 0)
    fill(tmp_path)
    pages = tree_pages(tmp_path / DATABASE)
    assert Seal(tmp_path / DATABASE).is_whole
    assert len(pages) > 8
    for page in random.Random(0).sample(pages, 4):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
        monkeypatch.setattr(environment, "find_faults", lambda _: pytest.fail("inspected"))
        seal(tmp_path / "copy")
        LmdbStore(tmp_path / "copy").close()
        monkeypatch.setattr(environment, "find_faults", find_faults)
        rot(tmp_path / "copy" / DATABASE, page * PAGE)
        with LmdbStore(tmp_path / "copy") as store:
            assert store.check().problems != ()
        assert (tmp_path / "copy" / DAMAGED).exists()


def seal(folder: Path) -> None:
    Seal(folder / DATABASE).set()


def test_the_sum_of_a_tree_changes_with_all_that_the_verifier_objects_to(tmp_path: Path) -> None:
    """1. A bit of a page is flipped. 2. lmdb's verifier reads the file. 3. The sum does. Both read bytes."""
    fill(tmp_path)
    database, rng, num_missed = tmp_path / DATABASE, random.Random(0), 0
    whole = sum_of_tree(database)
    for page in range(database.stat().st_size // PAGE):
        for offset in (rng.randrange(16), rng.randrange(PAGE)):
            rot(database, page * PAGE + offset)
            try:
                is_same = sum_of_tree(database) == whole
            except CorruptRecordError:
                is_same = False
            assert not (is_same and find_faults(database)), (page, offset)
            num_missed += is_same
            rot(database, page * PAGE + offset)
    # The content of values and of free pages, which is most of a file.
    assert num_missed > database.stat().st_size // PAGE // 2
    assert sum_of_tree(database) == whole


def use_and_die(folder: Path) -> None:
    with LmdbStore(folder) as store:
        store.put_many([versioned_record("r", 1)])
        store.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_no_seal(tmp_path: Path, forkserver: ForkServerContext) -> None:
    fill(tmp_path)
    assert Seal(tmp_path / DATABASE).is_whole
    child = forkserver.Process(target=use_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert not Seal(tmp_path / DATABASE).is_whole
    with LmdbStore(tmp_path) as store:
        assert store.check().problems == ()
        assert genuine("r", store.get_many([make_key("r")])[make_key("r").digest])
    assert Seal(tmp_path / DATABASE).is_whole


def test_a_store_that_another_process_uses_is_not_inspected(
    tmp_path: Path, forkserver: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is being written to, so what is read of it could contradict itself. The first to open it did inspect it."""
    fill(tmp_path)
    (tmp_path / SEAL).unlink()
    with LmdbStore(tmp_path):
        child = forkserver.Process(target=refuse_to_inspect, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == 0


def refuse_to_inspect(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kamera_agent.store.environment.find_faults", lambda _: pytest.fail("inspected"))
        LmdbStore(folder).close()
