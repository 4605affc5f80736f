"""Runs: exact KV of whole prompts on a store, as the engine keeps it, found by the engine's own page hashes.

A page's hash covers all tokens up to its end, so a run is found by the hash of its first page, and its other pages by
comparing hashes. A prompt that goes another way within a run goes on in a run of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import torch

from kamera_agent.chunk import Key, Record
from kamera_agent.pages.page import page_key
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.base import Store
from kamera_sglang.rows import Row, cut

NAMESPACE = "sglang"
# With a page of one token, a record each would be most of its size in headers.
MAX_TOKENS = 256
HASH_BYTES = 32


class Runs:
    """Runs of one model's pages in a store.

    facts: JSON facts about the model and its pages, which tell its runs from those of others.
    """

    def __init__(self, store: Store, page_size: int, facts: Mapping[str, Any]) -> None:
        self._store = store
        self._page_size = page_size
        self._facts = dict(facts)

    def find(self, hashes: Sequence[str]) -> list[Row]:
        """The KV of the first pages of these, as many in a row as the store has; all of it verified."""
        rows: list[Row] = []
        while len(rows) < len(hashes):
            key = self._key(hashes[len(rows)])
            if (record := self._store.get_many([key]).get(key.digest)) is None:
                break
            (names,), *layers = record.layers
            held = [bytes(name).hex() for name in names.numpy()]
            num_same = sum(takewhile(bool, map(eq, held, hashes[len(rows) :])))
            kv = [LayerKV(*layer) for layer in layers]
            rows += [Row(kv, self._tokens(number)) for number in range(num_same)]
        return rows

    def keep(self, hashes: Sequence[str], layers: Sequence[LayerKV]) -> None:
        """Write the KV of pages in a row. layers: per layer [H, T, D], on the CPU."""
        length = max(1, MAX_TOKENS // self._page_size)
        for first in range(0, len(hashes), length):
            part = hashes[first : first + length]
            tokens = slice(self._tokens(first).start, self._tokens(first + len(part) - 1).stop)
            kv = [[states.contiguous() for states in cut(layer, tokens)[:2]] for layer in layers]
            self._store.put_many([self._record(part, kv)])

    def _record(self, hashes: Sequence[str], kv: Sequence[Sequence[torch.Tensor]]) -> Record:
        key = self._key(hashes[0])
        names = torch.frombuffer(bytearray().join(map(bytes.fromhex, hashes)), dtype=torch.uint8)
        return Record.of(key, key.digest, "base", [[names.view(-1, HASH_BYTES)], *kv])

    def _key(self, first: str) -> Key:
        return page_key(first, NAMESPACE, page_size=self._page_size, **self._facts)

    def _tokens(self, number: int) -> slice:
        return slice(number * self._page_size, (number + 1) * self._page_size)
