"""What a shared tier keeps under which names. docs/shared-store.md describes it.

Names hold what was written, not when: the values of a record are under the identity of its header, and a patch holds
that of its base. So no reader ever joins the parts of two writes, in whatever order it sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from kamera_agent.chunk import FORMAT_VERSION, Record
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import Encoded, decode_header, decode_layers, encode, read_manifest
from kamera_agent.store.manifest import Manifest
from kamera_agent.store.remote.medium import PART_BYTES, Blob

IDENTITY_BYTES = 16
# In place of the identity of a base, where there is none.
NO_BASE = bytes(IDENTITY_BYTES)


class Stored(NamedTuple):
    """A header as it is stored.

    name: of the record. blob: the bytes under that name. manifest: what they say.
    """

    name: str
    blob: bytes
    manifest: Manifest

    @property
    def over(self) -> bytes:
        """Identity of the base that a patch was stored over; NO_BASE for a base."""
        return self.blob[:IDENTITY_BYTES]

    @property
    def header(self) -> bytes:
        """The header as codec and cipher know it."""
        return self.blob[IDENTITY_BYTES:]

    @property
    def identity(self) -> bytes:
        """Tells this content of the record from others: its checksum or, of an encrypted one, its nonce."""
        return self.header[:IDENTITY_BYTES]


class Layout:
    """The names of records, and their bytes.

    cipher: of an encrypted tier. Records of each key, and those of none, are apart from each other.
    """

    def __init__(self, cipher: Cipher | None) -> None:
        self._cipher = cipher
        self.root = f"{FORMAT_VERSION}-{cipher.check.hex()}" if cipher else str(FORMAT_VERSION)

    def name(self, digest: bytes) -> str:
        """The name of a record or a chunk."""
        return (self._cipher.name(digest) if self._cipher else digest).hex()

    @property
    def headers(self) -> str:
        """What the places of all headers begin with."""
        return f"{self.root}/h/"

    @property
    def values(self) -> str:
        """What the places of all parts begin with."""
        return f"{self.root}/v/"

    def header(self, name: str) -> str:
        """The place of the header of a record."""
        return self.headers + name

    def folder(self, chunk: str) -> str:
        """The folder of a chunk, whose members are the names of its records."""
        return f"{self.root}/c/{chunk}"

    def parts(self, stored: Stored) -> list[str]:
        """The places of the parts of a record."""
        place = f"{self.values}{stored.name}/{stored.identity.hex()}"
        return [f"{place}/{number}" for number in range(len(part_sizes(stored.manifest)))]

    def write(self, record: Record, over: bytes) -> tuple[Stored, list[Blob]]:
        """A record as it is stored, and its parts. over: identity of the base of a patch, else NO_BASE."""
        name = self.name(record.header.key.digest)
        plain = encoded = encode(record)
        if self._cipher:
            encoded = self._cipher.encrypt(bytes.fromhex(name), encoded)
        return Stored(name, over + encoded.header, decode_header(plain.header)), _joined(encoded)

    def read_header(self, name: str, blob: Blob) -> Stored:
        """Read what is under the name of a record. Raises CorruptRecordError."""
        blob = bytes(blob)
        header, cipher = blob[IDENTITY_BYTES:], self._cipher
        if cipher:
            manifest = read_manifest(cipher.decrypt_header(bytes.fromhex(name), header))
        else:
            manifest = decode_header(header)
        if self.name(bytes.fromhex(manifest.digest)) != name:
            raise CorruptRecordError(f"the header is that of record {manifest.digest}")
        if (manifest.base is None) != (blob[:IDENTITY_BYTES] == NO_BASE):
            raise CorruptRecordError("the header has lost its base")
        return Stored(name, blob, manifest)

    def read_record(self, stored: Stored, parts: Iterable[Blob]) -> Record:
        """Read a record from its parts, each of which is asked for when those before it are read.

        Raises CorruptRecordError, also where the parts end early.
        """
        values = _values(stored.manifest, parts)

        def fetch(number: int) -> memoryview | None:
            # They are asked for in order.
            return next(values, None)

        if self._cipher is None:
            layers = decode_layers(stored.manifest, fetch)
        else:
            opener = partial(self._cipher.opener, bytes.fromhex(stored.name), stored.header)
            layers = decode_layers(stored.manifest, fetch, opener)
        return Record(stored.manifest.header, layers)


def part_sizes(manifest: Manifest) -> list[int]:
    """The bytes of each part of a record."""
    sizes = _sizes(manifest)
    return [sum(sizes[number] for number in group) for group in _groups(sizes)]


def _sizes(manifest: Manifest) -> list[int]:
    return [value.num_bytes for layer in manifest.layers for value in layer.values]


def _groups(sizes: Sequence[int]) -> list[range]:
    """The numbers of the values in each part: as many as fit into PART_BYTES, but one at least."""
    groups, first, held = list[range](), 0, 0
    for number, size in enumerate(sizes):
        if number > first and held + size > PART_BYTES:
            groups.append(range(first, number))
            first, held = number, 0
        held += size
    return [*groups, range(first, len(sizes))] if sizes else []


def _joined(encoded: Encoded) -> list[Blob]:
    """The parts of a record."""
    groups = (encoded.values[each.start : each.stop] for each in _groups([value.size for value in encoded.values]))
    return [np.concatenate(group).data if len(group) > 1 else group[0].data for group in groups]


def _values(manifest: Manifest, parts: Iterable[Blob]) -> Iterator[memoryview]:
    sizes = _sizes(manifest)
    for group, part in zip(_groups(sizes), parts, strict=False):
        ends = [*accumulate(sizes[number] for number in group)]
        if len(part) != ends[-1]:
            raise CorruptRecordError(f"a part is {len(part)} bytes long; {ends[-1]} bytes were written")
        yield from (memoryview(part)[end - sizes[number] : end] for number, end in zip(group, ends, strict=True))
