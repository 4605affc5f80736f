"""Encrypted stores: nothing of a record is on the disk, a wrong key is an error, and what was changed is a miss."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pytest
from golden_store import KEY
from store_records import KIB, make_record

from benchmarks.torture.records import bits, over, same
from kamera_agent.chunk import Record
from kamera_agent.errors import MissingExtraError, StoreKeyError, StoreUnavailableError
from kamera_agent.store import cipher as cipher_module
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import encode
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead", reason="needs the extra encryption")

CAP_BYTES = 1 << 22
NUM_FLIPS = 60
OTHER_KEY = bytes(reversed(KEY))
WORDS = {"texts": ["a very private title"]}

open_store = partial(LmdbStore, cap_bytes=CAP_BYTES, key=lambda: KEY)


def filled(folder: Path) -> list[Record]:
    content = [make_record("base", attributes=WORDS), make_record("base/p", **over("base")), make_record("other")]
    with open_store(folder) as store:
        store.put_many(content)
    return content


def found(store: LmdbStore, content: Sequence[Record]) -> list[Record | None]:
    got = store.get_many([record.header.key for record in content])
    return [got.get(record.header.key.digest) for record in content]


def test_records_come_back_and_nothing_of_them_is_on_the_disk(tmp_path: Path) -> None:
    content = filled(tmp_path)
    with open_store(tmp_path) as store:
        assert store.is_encrypted
        assert all(same(left, right) for left, right in zip(found(store, content), content, strict=True))
        assert store.check().problems == ()
    data = (tmp_path / DATABASE).read_bytes()
    for record in content:
        assert record.header.key.material.encode()[:20] not in data
        assert all(raw[start : start + 32] not in data for _, _, raw in bits(record) for start in range(0, 1024, 32))
    for word in (b"private", b"kamera-record", b"float32"):
        assert word not in data


def test_the_layout_is_that_of_the_documents(tmp_path: Path) -> None:
    """A value and a header, decrypted by hand with nothing of the package."""
    (record,) = content = [make_record("base", attributes=WORDS)]
    with open_store(tmp_path) as store:
        store.put_many(content)
        store.flush()
        digest, tables = record.header.key.digest, store._database.tables
        blob = store._database.read(lambda txn: bytes(tables.header(txn, digest)))
        value = store._database.read(lambda txn: bytes(tables.value(txn, digest, 0)))
    nonce, tag, sealed = blob[:16], blob[16:32], blob[32:]
    record_key = blake2b(key=KEY, person=b"kamera records", digest_size=32).digest()
    aes = aead.AESGCM(blake2b(nonce, key=record_key, digest_size=32).digest())
    manifest = json.loads(aes.decrypt((1 << 32).to_bytes(12, "big"), sealed + tag, digest))
    assert manifest["attributes"] == WORDS
    checksum = bytes.fromhex(manifest["layers"][0]["values"][0]["checksum"])
    plain = aes.decrypt(bytes(12), value + checksum, digest)
    assert plain == b"".join(raw for _, _, raw in bits(Record(record.header, record.layers[:1])))


def test_no_nonce_is_used_for_two_contents_and_equal_records_stay_equal(tmp_path: Path) -> None:
    def nonce(record: Record) -> bytes:
        return Cipher(KEY).encrypt(record.header.key.digest, encode(record)).header[:16]

    variants = [make_record("r"), make_record("r", seed=1), make_record("r", attributes=WORDS), make_record("s")]
    assert len({nonce(record) for record in variants}) == len(variants)
    assert nonce(make_record("r")) == nonce(variants[0])
    with open_store(tmp_path) as store:
        store.put_many([make_record("b"), make_record("b/p", **over("b"))])
        store.flush()
        store.put_many([make_record("b")])
        store.flush()
        assert store.stats().num_records == 2
        store.put_many([make_record("b", seed=1)])
        store.flush()
        assert store.stats().num_records == 1


def test_a_file_has_a_nonce_for_each_place_and_content() -> None:
    """Two tags over one ciphertext under one nonce would tell of the key."""
    cipher = Cipher(KEY)
    files = {
        (place, content): cipher.encrypt_file(place, content) for place in (b"a", b"b") for content in (b"x", b"y")
    }
    assert len({blob[:16] for blob in files.values()}) == 4
    assert all(cipher.decrypt_file(place, blob) == content for (place, content), blob in files.items())
    assert cipher.decrypt_file(b"b", files[b"a", b"x"]) is None


def test_another_key_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    content = filled(tmp_path)
    before = (tmp_path / DATABASE).read_bytes()
    for key, message in ((lambda: OTHER_KEY, "with another key"), (None, "is encrypted; pass its key")):
        with pytest.raises(StoreKeyError, match=message):
            LmdbStore(tmp_path, key=key)
    assert (tmp_path / DATABASE).read_bytes() == before
    with open_store(tmp_path) as store:
        # Also while it is open in this process.
        for key in (lambda: OTHER_KEY, None):
            with pytest.raises(StoreKeyError):
                LmdbStore(tmp_path, key=key)
        assert all(found(store, content))


def test_a_plain_store_is_not_taken_for_an_encrypted_one(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many([make_record("r")])
    with pytest.raises(StoreKeyError, match="is not encrypted; `kamera rekey`"):
        open_store(tmp_path)
    with LmdbStore(tmp_path) as store:
        assert not store.is_encrypted
        assert found(store, [make_record("r")]) != [None]


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"kamera-agent\[encryption\]"):
        open_store(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_flipped_bits_are_misses(tmp_path: Path) -> None:
    """Anywhere in the file where there is something: a record comes back as it was put, or not at all."""
    content, rng, num_misses = filled(tmp_path), random.Random(0), 0
    pristine = (tmp_path / DATABASE).read_bytes()
    written = [place for place, byte in enumerate(pristine) if byte]
    for _ in range(NUM_FLIPS):
        data = bytearray(pristine)
        data[rng.choice(written)] ^= 1 << rng.randrange(8)
        (tmp_path / DATABASE).write_bytes(data)
        try:
            store = open_store(tmp_path)
        except StoreUnavailableError:
            num_misses += 1
            continue
        with store:
            got = found(store, content)
            assert all(record is None or same(record, right) for record, right in zip(got, content, strict=True))
            num_misses += None in got
    assert num_misses > NUM_FLIPS / 10, "hardly any flip hit live bytes: this test has no teeth"


def put_row(store: LmdbStore, table: str, key: bytes, row: bytes) -> None:
    store._database.write(lambda txn: txn.put(key, row, db=getattr(store._database.tables, table)))


def swap(store: LmdbStore, table: str, keys: Sequence[bytes]) -> None:
    handle = getattr(store._database.tables, table)
    rows = store._database.read(lambda txn: [bytes(txn.get(key, db=handle)) for key in keys])
    for key, row in zip(keys, reversed(rows), strict=True):
        put_row(store, table, key, row)


def swap_values(store: LmdbStore, pair: Sequence[Record]) -> None:
    swap(store, "values", [record.header.key.digest + bytes(4) for record in pair])


def swap_headers(store: LmdbStore, pair: Sequence[Record]) -> None:
    swap(store, "headers", [record.header.key.digest for record in pair])


def write_plainly(store: LmdbStore, pair: Sequence[Record]) -> None:
    for record in pair:
        encoded = encode(record)
        put_row(store, "headers", record.header.key.digest, encoded.header)
        for number, value in enumerate(encoded.values):
            put_row(store, "values", record.header.key.digest + number.to_bytes(4, "big"), bytes(value))


@pytest.mark.parametrize("attack", [swap_values, swap_headers, write_plainly])
def test_whoever_lacks_the_key_can_only_make_misses(
    attack: Callable[[LmdbStore, Sequence[Record]], None], tmp_path: Path
) -> None:
    """Rows that are swapped between records of one shape, and rows of a plain store."""
    content = filled(tmp_path)
    with open_store(tmp_path) as store:
        pair = content[0], content[2]
        attack(store, pair)
        assert found(store, pair) == [None, None]


def test_the_cap_counts_an_encrypted_record_like_a_plain_one(tmp_path: Path) -> None:
    with open_store(tmp_path / "one") as one, LmdbStore(tmp_path / "two", CAP_BYTES) as two:
        for store in (one, two):
            store.put_many(make_record(f"r{i}", [(5, KIB)]) for i in range(5))
            store.flush()
        assert one.stats() == two.stats()
