"""The mailbox: files by which a front end and the linker, in the engine's scheduler, speak about a request.

The front end writes an order before it sends a request. The linker reads it when the engine looks the request up, and
writes what it was asked to take once the engine has computed it. Each file is an archive of one record, so all of it is
verified before it is used. What cannot be written or read is missing, and the engine computes instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from kamera_agent.chunk import Key, Record
from kamera_agent.errors import ArchiveError
from kamera_agent.runtime.kernels.layers import LayerKV, tensors_of
from kamera_agent.store.archive import read_archive, write_archive
from kamera_agent.trouble import Trouble

ORDER, TAKEN = "order", "taken"

_log = logging.getLogger("kamera_sglang")


class Pages(NamedTuple):
    """The KV of tokens in a row.

    start: number of tokens of the prompt before them. layers: per layer K after RoPE and V, [H, T, D], on the CPU.
    """

    start: int
    layers: Sequence[LayerKV]

    @property
    def num_tokens(self) -> int:
        """Number of the tokens."""
        return self.layers[0].keys.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV."""
        return sum(tensor.nbytes for layer in self.layers for tensor in tensors_of(layer))

    @property
    def stop(self) -> int:
        """Number of tokens of the prompt up to their end."""
        return self.start + self.num_tokens


class Order(NamedTuple):
    """What a front end wants with a request.

    num_tokens: of its prompt. given: KV that the engine takes instead of computing it, in order. wanted: tokens whose
    KV the front end gets, from the first one on that the engine computes.
    """

    num_tokens: int
    given: Sequence[Pages] = ()
    wanted: Sequence[range] = ()


class Mailbox:
    """A folder that only this user may use. Ids of requests, which clients may choose, are hashed to make names."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._trouble = Trouble(
            _log,
            f"KV cannot be left in {folder}, which may be full; it is computed, and new chunks are not stored",
            f"KV is left in {folder} again",
        )

    def place(self, rid: str, order: Order) -> None:
        """Leave an order."""
        facts = {"num_tokens": order.num_tokens, "wanted": [[part.start, part.stop] for part in order.wanted]}
        self._write(ORDER, rid, facts, order.given)

    def order(self, rid: str) -> Order | None:
        """The order of a request; None where there is none, or it is damaged."""
        if (record := self._read(ORDER, rid)) is None:
            return None
        facts = record.header.attributes
        return Order(facts["num_tokens"], _pages(record), [range(*ends) for ends in facts["wanted"]])

    def is_open(self, rid: str) -> bool:
        """Whether the request of an order goes on."""
        return self._path(ORDER, rid).exists()

    def deliver(self, rid: str, taken: Sequence[Pages]) -> None:
        """Leave the KV that an order wanted."""
        self._write(TAKEN, rid, {}, taken)

    def taken(self, rid: str) -> list[Pages] | None:
        """The KV that an order wanted; None where it has not come."""
        record = self._read(TAKEN, rid)
        return None if record is None else _pages(record)

    def clear(self, rid: str) -> None:
        """Remove all that was said of a request."""
        for kind in (ORDER, TAKEN):
            self._path(kind, rid).unlink(missing_ok=True)

    def _path(self, kind: str, rid: str) -> Path:
        return self._folder / f"{blake3(rid.encode()).hexdigest(16)}.{kind}"

    def _write(self, kind: str, rid: str, facts: dict[str, Any], pages: Sequence[Pages]) -> None:
        key = Key.of(kind=kind, request=rid)
        layers = [tensors_of(layer) for part in pages for layer in part.layers]
        record = Record.of(key, key.digest, "base", layers, {**facts, "starts": [part.start for part in pages]})
        path = self._path(kind, rid)
        unfinished = path.with_suffix(".unfinished")
        with self._trouble.contained():
            try:
                with unfinished.open("wb") as file:
                    write_archive(file, [record])
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)

    def _read(self, kind: str, rid: str) -> Record | None:
        try:
            with self._path(kind, rid).open("rb") as file:
                [record] = read_archive(file)
                return record
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ArchiveError, OSError) as error:
            _log.warning("the %s of request %s cannot be used: %s", kind, rid, error)
            return None


def _pages(record: Record) -> list[Pages]:
    starts = record.header.attributes["starts"]
    layers = [LayerKV(*layer) for layer in record.layers]
    num_layers = len(layers) // max(1, len(starts))
    return [Pages(start, layers[number * num_layers :][:num_layers]) for number, start in enumerate(starts)]
