"""Archives: one file with records, for another machine. docs/store-format.md describes it.

What is read is taken for hostile: sizes are bounded by that of the file before memory is taken, and nothing in it names
a file or becomes an object.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import IO

from blake3 import blake3

from kamera_agent.chunk import Record
from kamera_agent.config import MIB
from kamera_agent.errors import ArchiveError, CorruptRecordError
from kamera_agent.store.codec import decode_header, decode_layers, encode
from kamera_agent.store.manifest import Manifest

MAGIC = b"kamera-archive 1\n"
MAX_HEADER_BYTES = 16 * MIB
_SIZE = struct.Struct(">I")
_COUNT = struct.Struct(">Q")
DIGEST_BYTES = 32
TAIL_BYTES = _SIZE.size + _COUNT.size + DIGEST_BYTES


def write_archive(file: IO[bytes], records: Iterable[Record]) -> int:
    """Write records, each patch after its base, as an archive to an empty file. Returns their number.

    Raises OSError.
    """
    sum_of_all, num_records = blake3(), 0

    def write(data: bytes | memoryview) -> None:
        sum_of_all.update(data)
        file.write(data)

    write(MAGIC)
    for record in records:
        encoded = encode(record)
        num_records += 1
        write(_SIZE.pack(len(encoded.header)))
        write(encoded.header)
        for value in encoded.values:
            write(value.data)
    write(_SIZE.pack(0) + _COUNT.pack(num_records))
    file.write(sum_of_all.digest())
    return num_records


def read_archive(file: IO[bytes]) -> Iterator[Record]:
    """The records of an archive, one after the other, each verified; the sum over all of them comes last.

    Nothing of it may be kept before all were read once. Memory is bounded by the largest record, which is smaller than
    the file. Raises ArchiveError for a file that write_archive did not write, and OSError.
    """
    reader = _Reader(file)
    if reader.take(len(MAGIC)) != MAGIC:
        raise ArchiveError("The file does not begin as an archive of version 1; make one with `kamera export`.")
    chunks: dict[str, str] = {}
    num_records = 0
    while size := _SIZE.unpack(reader.take(_SIZE.size))[0]:
        try:
            manifest = _manifest(reader, size, chunks)
            layers = decode_layers(manifest, partial(reader.value, _sizes(manifest)))
        except CorruptRecordError as error:
            raise ArchiveError(f"Record {num_records} of the archive is damaged: {error}.") from error
        yield Record(manifest.header, layers)
        num_records += 1
    if _COUNT.unpack(reader.take(_COUNT.size))[0] != num_records:
        raise ArchiveError(f"The archive holds {num_records} records and says that it holds another number.")
    total = reader.sum_of_all.digest()
    if reader.take(DIGEST_BYTES) != total or reader.num_left:
        raise ArchiveError("The archive was changed after it was written: its last digest is not that of its content.")


class _Reader:
    """Takes bytes from a file, never more than it has.

    sum_of_all: BLAKE3 of what was taken. num_left: bytes that are left.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_left = os.fstat(file.fileno()).st_size - file.tell()
        self.sum_of_all = blake3()

    def take(self, num_bytes: int) -> bytes:
        """The next bytes. Raises ArchiveError when the file has fewer."""
        taken = self._file.read(num_bytes) if num_bytes <= self.num_left else b""
        if len(taken) != num_bytes:
            raise ArchiveError("The archive is cut short.")
        self.num_left -= num_bytes
        self.sum_of_all.update(taken)
        return taken

    def value(self, sizes: Sequence[int], number: int) -> memoryview:
        """The next value, which has that number in a record whose values have these sizes."""
        return memoryview(self.take(sizes[number]))


def _sizes(manifest: Manifest) -> list[int]:
    return [value.num_bytes for layer in manifest.layers for value in layer.values]


def _manifest(reader: _Reader, size: int, chunks: dict[str, str]) -> Manifest:
    """The next header, of that many bytes. chunks: the chunk of every base so far, by digest."""
    if size > MAX_HEADER_BYTES:
        raise ArchiveError(f"The archive has a header of {size} bytes, more than {MAX_HEADER_BYTES}.")
    manifest = decode_header(reader.take(size))
    num_bytes = manifest.header.num_bytes
    if num_bytes > reader.num_left:
        raise ArchiveError(f"The archive is cut short: a record of {num_bytes} bytes is larger than what is left.")
    if blake3(manifest.material.encode()).hexdigest() != manifest.digest:
        raise CorruptRecordError("its digest is not that of its material")
    if manifest.base is None:
        chunks[manifest.digest] = manifest.chunk
    elif chunks.get(manifest.base) != manifest.chunk:
        raise CorruptRecordError("it is a patch whose base is not before it")
    return manifest
