"""Damaged files: bits flipped, pages cut off, zeroed, swapped and doubled, in every region of the files of a store.

Each number is one damage, made in a copy of a store and met by a process as an agent has it: it opens the store, reads
it, checks it, and opens it again to write.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.torture.children import in_children, scratch
from benchmarks.torture.figures import Figures
from benchmarks.torture.records import get_all, make_key, num_wrong, versioned_record, versions
from kamera_agent.store import environment
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

PAGE = 4096
CAP_BYTES = 1 << 20
NAMES = [f"r{i}{patch}" for i in range(16) for patch in ("", "/p")]
KEY = bytes(range(32))
LOCKS, SEAL = f"{DATABASE}-lock", Path(DATABASE).with_suffix(".seal").name
# The head of a page: its number, two bytes of padding, its flags.
HEAD = struct.Struct("<QHH")
KINDS = {1: "branches", 2: "leaves", 4: "values"}

Bytes = bytearray
Damage = Callable[[Bytes, int, random.Random], None]


def flip(data: Bytes, page: int, rng: random.Random) -> None:
    data[_within(data, page, rng.randrange(PAGE))] ^= 1 << rng.randrange(8)


def flip_in_head(data: Bytes, page: int, rng: random.Random) -> None:
    data[_within(data, page, rng.randrange(96))] ^= 1 << rng.randrange(8)


def flip_many(data: Bytes, page: int, rng: random.Random) -> None:
    for _ in range(30):
        flip(data, page, rng)


def cut(data: Bytes, page: int, rng: random.Random) -> None:
    del data[page * PAGE + rng.choice([0, rng.randrange(PAGE)]) :]


def zero(data: Bytes, page: int, rng: random.Random) -> None:
    _overwrite(data, page, bytes(PAGE))


def scramble(data: Bytes, page: int, rng: random.Random) -> None:
    _overwrite(data, page, rng.randbytes(PAGE))


def double(data: Bytes, page: int, rng: random.Random) -> None:
    """Another page gets the content of this one."""
    _overwrite(data, _any_page(data, rng), data[page * PAGE :][:PAGE])


def swap(data: Bytes, page: int, rng: random.Random) -> None:
    other = _any_page(data, rng)
    ours, theirs = (bytes(data[each * PAGE :][:PAGE]) for each in (page, other))
    _overwrite(data, page, theirs)
    _overwrite(data, other, ours)


def _within(data: Bytes, page: int, offset: int) -> int:
    return min(page * PAGE + offset, len(data) - 1)


def _overwrite(data: Bytes, page: int, content: bytes) -> None:
    start, size = page * PAGE, len(data)
    data[start : start + PAGE] = content
    del data[size:]


def _any_page(data: Bytes, rng: random.Random) -> int:
    return rng.randrange(-(-len(data) // PAGE))


DAMAGES: list[Damage] = [flip, flip_in_head, flip_many, cut, zero, scramble, double, swap]


@dataclass(frozen=True)
class Pristine:
    """The files of a store by name, closed in good order, the versions of its records, and its key."""

    files: Mapping[str, bytes]
    versions: Mapping[str, int]
    key: bytes | None

    @cached_property
    def regions(self) -> dict[str, list[tuple[str, int]]]:
        """Pages as (file, number) by what they are; what is in free pages counts as what it was."""
        database = self.files[DATABASE]
        pages: dict[str, list[tuple[str, int]]] = {"metas": [(DATABASE, 0), (DATABASE, 1)]}
        for number in range(2, len(database) // PAGE):
            stored, _, flags = HEAD.unpack_from(database, number * PAGE)
            kind = KINDS.get(flags, "rest") if stored == number else "rest"
            pages.setdefault(kind, []).append((DATABASE, number))
        pages["files beside"] = [(LOCKS, 0), (LOCKS, 1), (SEAL, 0)]
        return pages

    def open(self, folder: Path) -> LmdbStore:
        return LmdbStore(folder, CAP_BYTES, key=None if self.key is None else lambda: self.key)


def make_pristine(folder: Path, key: bytes | None) -> Pristine:
    """Records put, replaced and deleted, so that there are free pages and trees of several levels."""
    rng, pristine = random.Random(0), Pristine({}, {}, key)
    with pristine.open(folder) as store:
        for _ in range(8):
            store.put_many(versioned_record(rng.choice(NAMES), rng.randrange(1000)) for _ in range(25))
            store.delete([make_key(rng.choice(NAMES))])
            store.flush()
        found = versions(get_all(store, NAMES))
    return Pristine({path.name: path.read_bytes() for path in folder.iterdir()}, found, key)


@cache
def _pristine(folder: Path, is_encrypted: bool) -> Pristine:
    place = folder / f"pristine{is_encrypted}"
    place.mkdir()
    return make_pristine(place, KEY if is_encrypted else None)


def meet_damage(seed: int, folder: Path, number: int, is_hidden: bool = False) -> Figures:
    """Damage a store and use it. Counts `mutations`, `wrong`, `unwritable` and `unreported`.

    is_hidden: whether the seal tells nothing of it but by what is in the pages.
    """
    rng = random.Random(f"{seed} {number}")
    pristine = _pristine(folder, is_encrypted=number % 2 == 1)
    place = folder / "store"
    _lay_out(pristine, place, rng)
    if is_hidden:
        _hide(place)
    figures = Figures(mutations=1)
    with pristine.open(place) as store:
        figures["wrong"] += num_wrong(get_all(store, NAMES)) if rng.random() < 0.3 else 0
        problems, moved = store.check().problems, bool(store._database.faults)
        found, num_quarantined = get_all(store, NAMES), store.stats().quarantined
    figures["wrong"] += num_wrong(found)
    lost = {name for name, version in pristine.versions.items() if versions(found).get(name) != version}
    figures["unreported"] += bool(lost) and not (problems or num_quarantined)
    figures["emptied"] += moved
    with pristine.open(place) as store:
        new = versioned_record("new", number)
        store.put_many([new])
        sound = store.check().problems == () and store.stats().failed_writes == 0
        figures["unwritable"] += not sound or versions(get_all(store, ["new"])) != {"new": number}
    return figures


def _lay_out(pristine: Pristine, place: Path, rng: random.Random) -> None:
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    regions = pristine.regions
    name, page = rng.choice(regions[rng.choice(sorted(regions))])
    for each, content in pristine.files.items():
        data = bytearray(content)
        if each == name:
            rng.choice(DAMAGES)(data, page, rng)
        (place / each).write_bytes(data)


def _hide(place: Path) -> None:
    """Have the seal say the size and time of the damaged database."""
    facts = (place / DATABASE).stat()
    with suppress(ValueError):  # It is what was damaged.
        *_, tree = json.loads((place / SEAL).read_bytes())
        (place / SEAL).write_text(json.dumps([facts.st_ino, facts.st_size, facts.st_mtime_ns, tree]))


def meet_hidden_damage(seed: int, folder: Path, number: int) -> Figures:
    """Meet damage that came to a store of more than a gigabyte after it was closed, and left its size and time."""
    with patch.object(environment, "INSPECTED_BYTES", -1):
        return meet_damage(seed, folder, number, is_hidden=True) + Figures(hidden=1)


def run(count: int, seed: int) -> Figures:
    """Meet so many damages, and a twentieth as many hidden ones in stores that seem to be too large to be inspected.

    Counts `mutations`, `hidden` ones among them, `deaths`, `wrong`, `unwritable`, `unreported`.
    """
    figures = Figures()
    for meet, times in ((meet_damage, count), (meet_hidden_damage, count // 20)):
        with scratch() as folder:
            figures += in_children(partial(meet, seed), range(times), folder)
    return figures
