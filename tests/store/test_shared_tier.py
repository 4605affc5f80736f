"""The shared tier beyond the contract: what is damaged, gone, or somebody else's."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
import torch
from store_records import make_record, record_of_bytes

from benchmarks.torture.records import make_key, over, same
from kamera_agent.chunk import Record
from kamera_agent.errors import InputError, SettingError, StoreUnavailableError
from kamera_agent.store.base import Store
from kamera_agent.store.remote import listings
from kamera_agent.store.remote import store as store_module
from kamera_agent.store.remote.address import open_shared
from kamera_agent.store.remote.medium import Blob, Medium
from kamera_agent.store.remote.objects import ObjectMedium
from kamera_agent.store.remote.reader import Piece
from kamera_agent.store.remote.redis import RedisMedium
from kamera_agent.store.remote.store import RemoteStore

PATIENCE_S = 60.0
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))

Open = Callable[..., RemoteStore]


@pytest.fixture(params=["redis", "redis encrypted", "objects"])
def open_store(request: pytest.FixtureRequest, shared_url: Callable[[str], str]) -> Iterator[Open]:
    """Opens stores that share one place, as machines do."""
    if "encrypted" in request.param:
        pytest.importorskip("cryptography", reason="needs the extra encryption")
    url, opened = shared_url(request.param), list[RemoteStore]()
    own = KEY if "encrypted" in request.param else None

    def open_one(key: bytes | None = own) -> RemoteStore:
        opened.append(open_shared(url, PATIENCE_S, (lambda: key) if key else None))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def put(store: Store, *records: Record) -> None:
    store.put_many(records)
    store.flush()


def get(store: Store, record: Record) -> Record | None:
    return store.get_many([record.header.key]).get(record.header.key.digest)


def medium_of(store: RemoteStore) -> Medium:
    return store._medium


def places(store: RemoteStore, kind: str) -> list[str]:
    """Where the headers (h) or parts (v) of all records are."""
    return sorted(place for place, _ in medium_of(store).survey(f"{store._layout.root}/{kind}/"))


def overwrite(store: RemoteStore, place: str, change: Callable[[bytes], bytes]) -> None:
    medium = medium_of(store)
    medium.put({place: change(bytes(medium.get([place])[0] or b""))})


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]),
    "shorter": lambda blob: blob[:-1],
    "longer": lambda blob: blob + b"\0",
    "empty": lambda blob: b"",
    "zeros": lambda blob: bytes(len(blob)),
}


class TestDamage:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    @pytest.mark.parametrize("kind", ["h", "v"])
    def test_a_damaged_record_is_a_miss_and_makes_way(
        self, open_store: Open, kind: str, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        record, other = make_record("r", num_layers=3), make_record("other")
        put(writing := open_store(), record)
        (place,) = places(writing, kind)
        overwrite(writing, place, change)
        put(writing, other)
        store = open_store()
        assert get(store, record) is None
        assert store.stats().quarantined == 1
        assert "damaged and removed" in caplog.text
        assert store.headers(record.header.chunk) == []
        assert same(get(store, other), other)
        put(store, record)
        assert same(get(store, record), record)
        assert store.check().problems == ()

    def test_check_names_what_is_damaged(self, open_store: Open) -> None:
        put(store := open_store(), *(make_record(f"r{i}") for i in range(3)))
        overwrite(store, places(store, "v")[1], CHANGES["a bit"])
        report = store.check()
        assert (report.num_records, len(report.problems)) == (2, 1)
        assert store.check().problems == ()

    @pytest.mark.parametrize("kind", ["h", "v"])
    def test_swapped_records_are_misses(self, open_store: Open, kind: str) -> None:
        """Two records of one size, whose headers or parts were exchanged."""
        records = [make_record("r0"), make_record("r1")]
        put(store := open_store(), *records)
        first, second = places(store, kind)
        blobs = [bytes(blob or b"") for blob in medium_of(store).get([first, second])]
        medium_of(store).put({first: blobs[1], second: blobs[0]})
        assert open_store().get_many([record.header.key for record in records]) == {}

    def test_an_older_header_does_not_bring_back_what_belongs_to_it(self, open_store: Open) -> None:
        old, new = make_record("r", seed=1), make_record("r", seed=2)
        put(store := open_store(), old)
        (place,) = places(store, "h")
        kept = bytes(medium_of(store).get([place])[0] or b"")
        put(store, new)
        medium_of(store).put({place: kept})
        assert get(open_store(), new) is None

    def test_a_part_that_is_gone_is_a_miss_and_no_damage(self, open_store: Open) -> None:
        """The server evicts keys one by one. What is left of a record is no evidence, so it is written anew."""
        record = make_record("r", [(9_000_000,)], torch.uint8)
        put(store := open_store(), record)
        assert len(places(store, "v")) > 1
        medium_of(store).delete([places(store, "v")[1]])
        other = open_store()
        assert other.headers(record.header.chunk) == [record.header]
        assert get(other, record) is None
        assert other.stats().quarantined == 0
        assert other.headers(record.header.chunk) == []
        put(other, record)
        assert same(get(open_store(), record), record)

    def test_a_header_that_is_gone_takes_the_patches_along(self, open_store: Open) -> None:
        base, patch = make_record("b"), make_record("p", **over("b"))
        put(store := open_store(), base, patch)
        medium_of(store).delete([store._layout.header(store._layout.name(base.header.key.digest))])
        other = open_store()
        assert other.headers(base.header.chunk) == []
        assert other.headers() == []
        assert other.get_many([base.header.key, patch.header.key]) == {}


class TestPieces:
    """Records of several parts, one part a request."""

    @pytest.fixture
    def records(self, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
        for medium in (ObjectMedium, RedisMedium):
            monkeypatch.setattr(medium, "load_bytes", 1)
        return [make_record(name, [(9_000_000,), (0,), (7,)], torch.uint8, num_layers=2) for name in ("r0", "r1")]

    def test_records_equal_those_that_were_written(self, open_store: Open, records: list[Record]) -> None:
        empty = make_record("empty", [(0, 4)])
        put(open_store(), *records, empty)
        found = open_store().get_many([record.header.key for record in [*records, empty]])
        assert all(same(found[record.header.key.digest], record) for record in [*records, empty])

    def test_a_part_is_read_while_the_next_one_is_fetched(
        self, open_store: Open, records: list[Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The request for each part is answered only once the part before it was asked for by the reader."""
        put(open_store(), *records)
        store = open_store()
        asked, medium = threading.Semaphore(1), medium_of(store)
        real_get, real_arriving = medium.get, store_module.arriving

        def get_in_turn(names: Sequence[str]) -> list[Blob | None]:
            if "/v/" in "".join(names):
                assert asked.acquire(timeout=PATIENCE_S)
            return real_get(names)

        def arriving(pieces: Iterable[Piece]) -> Iterator[Blob]:
            for part in real_arriving(pieces):
                asked.release()
                yield part

        monkeypatch.setattr(medium, "get", get_in_turn)
        monkeypatch.setattr(store_module, "arriving", arriving)
        found = store.get_many([record.header.key for record in records])
        assert all(same(found[record.header.key.digest], record) for record in records)

    @pytest.mark.parametrize("num_parts", [1, 3])
    def test_records_that_came_in_time_are_served(
        self, open_store: Open, records: list[Record], monkeypatch: pytest.MonkeyPatch, num_parts: int
    ) -> None:
        """Of two records with two parts each, so many parts come. The late record stays where it is."""
        put(writing := open_store(), *records)
        store = open_store()
        medium, come, gate = medium_of(store), iter(range(num_parts)), threading.Event()
        real_get = medium.get

        def get_some(names: Sequence[str]) -> list[Blob | None]:
            if "/v/" in "".join(names) and next(come, None) is None:
                gate.wait(PATIENCE_S)
            return real_get(names)

        monkeypatch.setattr(medium, "get", get_some)
        store._allowance.seconds = 2.0
        found = store.get_many([record.header.key for record in records])
        gate.set()
        assert [*found] == [record.header.key.digest for record in records[: num_parts // 2]]
        assert store.stats().quarantined == 0
        assert writing.check().num_records == 2


class TestOthers:
    def test_another_machine_reads_what_was_written(self, open_store: Open) -> None:
        base, patch = make_record("b"), make_record("p", **over("b"))
        put(open_store(), base, patch)
        other = open_store()
        assert {header.key for header in other.headers(base.header.chunk)} == {base.header.key, patch.header.key}
        assert same(get(other, base), base)
        assert same(get(other, patch), patch)

    def test_what_others_put_into_a_listed_chunk_is_found_later(
        self, open_store: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, (store, other) = make_record("r"), (open_store(), open_store())
        assert store.headers(record.header.chunk) == []
        put(other, record)
        assert store.headers(record.header.chunk) == []
        monkeypatch.setattr(listings, "monotonic", lambda: float("inf"))
        assert store.headers(record.header.chunk) == [record.header]

    def test_what_others_replace_is_a_miss_once(self, open_store: Open) -> None:
        old, new, (store, other) = make_record("r", seed=1), make_record("r", seed=2), (open_store(), open_store())
        put(other, old)
        assert store.headers(old.header.chunk) == [old.header]
        put(other, new)
        assert get(store, old) is None
        assert same(get(store, old), new)

    def test_a_patch_over_a_base_that_others_replace_meanwhile_is_not_offered(self, open_store: Open) -> None:
        """The last write of two machines that race: the patch arrives after its base has another content."""
        patch, (store, other) = make_record("p", **over("b")), (open_store(), open_store())
        put(store, make_record("b"), patch)
        header, parts = (medium_of(store).get(places(store, kind)) for kind in ("h", "v"))
        kept = dict(zip(places(store, "h") + places(store, "v"), header + parts, strict=True))
        put(other, new := make_record("b", seed=1))
        name = store._layout.name(patch.header.key.digest)
        medium_of(store).put({place: blob for place, blob in kept.items() if name in place and blob is not None})
        medium_of(store).add(store._layout.folder(store._layout.name(new.header.chunk)), name)
        assert open_store().headers(new.header.chunk) == [new.header]
        assert get(open_store(), patch) is None

    def test_keys_are_apart(self, open_store: Open) -> None:
        pytest.importorskip("cryptography", reason="needs the extra encryption")
        stores = [open_store(key) for key in (None, KEY, OTHER_KEY)]
        records = [make_record("r", seed=seed) for seed in range(3)]
        for store, record in zip(stores, records, strict=True):
            put(store, record)
        for store, record in zip(stores, records, strict=True):
            assert same(get(store, record), record)
            assert store.headers() == [record.header]
            assert store.check().problems == ()

    def test_nothing_of_an_encrypted_record_is_in_the_clear(self, open_store: Open) -> None:
        pytest.importorskip("cryptography", reason="needs the extra encryption")
        record = make_record("r", attributes={"note": "nobody may read this"})
        put(store := open_store(KEY), record)
        everything = [place for kind in ("h", "v") for place in places(store, kind)]
        seen = b"".join([place.encode() + bytes(medium_of(store).get([place])[0] or b"") for place in everything])
        for secret in (record.header.key.digest, record.header.key.digest.hex().encode(), b"nobody may read"):
            assert secret not in seen
        assert bytes(record.layers[0][0].numpy().data)[:64] not in seen


def test_a_forked_child_opens_its_own(open_store: Open, shared_url: Callable[[str], str]) -> None:
    record = make_record("r")
    put(store := open_store(), record)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def child() -> None:
        try:
            store.get_many([record.header.key])
        except StoreUnavailableError as error:
            sending.send(str(error))
        store.close()

    process = context.Process(target=child)
    process.start()
    assert receiving.poll(30)
    assert "forked from it; open the store again" in receiving.recv()
    process.join(30)
    assert process.exitcode == 0
    assert same(get(store, record), record)


def test_records_that_cannot_be_stored_are_refused(open_store: Open) -> None:
    with pytest.raises(InputError, match="complex64"):
        open_store().put_many([make_record("r", [(3,)]), _complex_record()])


def _complex_record() -> Record:
    return Record.of(make_key("c"), make_key("c").digest, "base", [[torch.zeros(2, dtype=torch.complex64)]])


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("ftp://host/x", "No store is known by ftp://; use redis"),
            ("redis://host:port", "The URL of a shared store is not one"),
            ("redis://host/0?ttl_s=0", "ttl_s is '0'"),
            ("redis://host/0?ttl_s=soon", "ttl_s is 'soon'"),
            ("s3://bucket/x?region=eu", "set them in the environment"),
            ("env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE holds no URL"),
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str, message: str) -> None:
        with pytest.raises(SettingError, match=message):
            open_shared(url, 1.0)

    def test_a_password_is_never_shown(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        pytest.importorskip("redis", reason="needs the extra redis")
        monkeypatch.setenv("SHARED_STORE", "redis://user:secret@127.0.0.1:1/0")
        with open_shared("env:SHARED_STORE", 1.0) as store:
            assert store.headers(make_key("c").digest) == []
        assert "redis://127.0.0.1:1/0 does not answer" in caplog.text
        assert "secret" not in caplog.text
        with pytest.raises(Exception, match="closed") as caught:
            store.headers()
        assert "secret" not in str(caught.value)

    def test_keys_expire(self, shared_url: Callable[[str], str]) -> None:
        with open_shared(shared_url("redis") + "&ttl_s=100", PATIENCE_S) as store:
            put(store, record_of_bytes("r", 5000))
            client = medium_of(store)._client
            keys = list(client.scan_iter(f"{medium_of(store)._prefix}*"))
            assert len(keys) == 3
            assert all(0 < client.ttl(key) <= 100 for key in keys)


def test_nothing_is_left_of_what_is_deleted(open_store: Open) -> None:
    put(store := open_store(), make_record("b"), make_record("p", **over("b")), make_record("b", seed=1))
    put(store, make_record("q", **over("b")))
    store.delete([make_key("b")])
    store.flush()
    assert places(store, "h") + places(store, "v") == []
