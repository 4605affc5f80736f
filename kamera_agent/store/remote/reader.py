"""Reading records from a shared tier."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from kamera_agent.chunk import Key
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.remote.layout import NO_BASE, Layout, Stored, part_sizes
from kamera_agent.store.remote.listings import Listing, Listings
from kamera_agent.store.remote.medium import Blob, Medium

NAME_DIGITS, DIGITS = 64, frozenset("0123456789abcdef")


class Piece(NamedTuple):
    """A header, and one part of its record, None where that is gone; no part of a record that has none."""

    stored: Stored
    parts: list[Blob | None]


class PartGoneError(Exception):
    """Others removed a part of a record."""


class PartLateError(Exception):
    """A part of a record has not come in time."""


def arriving(pieces: Iterable[Piece]) -> Iterator[Blob]:
    """The parts of one record as they come. Raises PartGoneError, and PartLateError where they end."""
    for piece in pieces:
        for part in piece.parts:
            if part is None:
                raise PartGoneError
            yield part
    raise PartLateError


class Reader:
    """The requests that reading takes. Each method may fail as the medium does; Wire contains that.

    on_damage: called with the name of a record, the bytes of its header and the reason when it cannot be what was
    written.
    """

    def __init__(
        self, medium: Medium, layout: Layout, listings: Listings, on_damage: Callable[[str, Blob, str], None]
    ) -> None:
        self._medium, self._layout, self._listings, self._on_damage = medium, layout, listings, on_damage

    def look_up(self, chunks: Sequence[str]) -> dict[str, Listing]:
        """The headers of chunks, by the names of chunks and records; chunks that were listed lately from memory."""
        listings = {chunk: listing for chunk in chunks if (listing := self._listings.find(chunk)) is not None}
        if missing := [chunk for chunk in dict.fromkeys(chunks) if chunk not in listings]:
            num_changes = self._listings.num_changes
            fresh = self._list(missing)
            self._listings.keep(fresh, num_changes)
            listings |= fresh
        return listings

    def fetch(self, keys: Collection[Key]) -> Iterator[Piece]:
        """What is stored under keys, as fill() gives it; patches only over the base that they were stored over."""
        wanted = {self._layout.name(key.digest): key for key in keys}
        stored = self._known(wanted)
        found = [each for name, each in stored.items() if each.manifest.material == wanted[name].material]
        bases = {name for each in found if (name := self._base_of(each)) and name not in stored}
        stored |= self._known(bases)
        return self.fill([each for each in found if self._is_whole(each, stored)])

    def fill(self, found: Sequence[Stored]) -> Iterator[Piece]:
        """The parts of records, one after the other, as they come."""
        for load in _loads(found, self._medium.load_bytes):
            places = [self._layout.parts(stored)[part] for stored, part in load if part is not None]
            blobs = iter(self._medium.get(places))
            for stored, part in load:
                yield Piece(stored, [] if part is None else [next(blobs)])

    def names(self) -> list[str]:
        """The names of all records."""
        start = self._layout.headers
        names = (place[len(start) :] for place, _ in self._medium.survey(start))
        return [name for name in names if _is_name(name)]

    def headers(self, names: Sequence[str]) -> list[Stored]:
        """The headers under names; patches only over the base that they were stored over."""
        stored = self._read(names)
        bases = {name for each in stored.values() if (name := self._base_of(each)) and name not in stored}
        known = stored | self._read([*bases])
        return [each for each in stored.values() if self._is_whole(each, known)]

    def sizes(self) -> dict[str, int]:
        """The bytes of all records by name, without reading any."""
        sizes: dict[str, int] = {}
        headers, values = self._layout.headers, self._layout.values
        for place, _ in self._medium.survey(headers):
            sizes[place[len(headers) :]] = 0
        for place, size in self._medium.survey(values):
            name = place[len(values) :].partition("/")[0]
            if name in sizes:
                sizes[name] += size
        return sizes

    def _list(self, chunks: Sequence[str]) -> dict[str, Listing]:
        folders = [self._layout.folder(chunk) for chunk in chunks]
        names = [[*filter(_is_name, members)] for members in self._medium.members(folders)]
        stored = self._read([name for members in names for name in members])
        for folder, members in zip(folders, names, strict=True):
            # A header is written before its name is, so it is gone.
            self._medium.remove(folder, [name for name in members if name not in stored])
        listed = ({name: stored[name] for name in members if name in stored} for members in names)
        return {
            chunk: {name: each for name, each in listing.items() if self._is_whole(each, listing)}
            for chunk, listing in zip(chunks, listed, strict=True)
        }

    def _known(self, names: Collection[str]) -> dict[str, Stored]:
        remembered = {name: each for name in names if (each := self._listings.find_record(name)) is not None}
        return remembered | self._read([name for name in names if name not in remembered])

    def _read(self, names: Sequence[str]) -> dict[str, Stored]:
        stored = {}
        for name, blob in zip(names, self._medium.get([*map(self._layout.header, names)]), strict=True):
            if blob is None:
                continue
            try:
                stored[name] = self._layout.read_header(name, blob)
            except CorruptRecordError as error:
                self._on_damage(name, blob, str(error))
        return stored

    def _base_of(self, stored: Stored) -> str | None:
        base = stored.manifest.base
        return None if base is None else self._layout.name(bytes.fromhex(base))

    def _is_whole(self, stored: Stored, known: Listing) -> bool:
        """Whether a record is a base, or a patch over the content that its base has now."""
        base = self._base_of(stored)
        return stored.over == (NO_BASE if base is None else known[base].identity if base in known else None)


def _loads(found: Sequence[Stored], load_bytes: int) -> Iterator[list[tuple[Stored, int | None]]]:
    """The parts of records by number, in loads of at most so many bytes; None for a record without parts."""
    load, held = list[tuple[Stored, int | None]](), 0
    for stored in found:
        sizes = part_sizes(stored.manifest)
        for part, size in enumerate(sizes) if sizes else [(None, 0)]:
            if load and held + size > load_bytes:
                yield load
                load, held = [], 0
            load.append((stored, part))
            held += size
    if load:
        yield load


def _is_name(text: str) -> bool:
    """Whether somebody may have written a record under a name; others may use the same place."""
    return len(text) == NAME_DIGITS and set(text) <= DIGITS
