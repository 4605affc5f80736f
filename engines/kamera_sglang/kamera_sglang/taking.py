"""Taking: the KV that orders want, as the engine computes it, part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.mailbox import Mailbox, Pages
from kamera_sglang.rows import cut, joined


class _Place(NamedTuple):
    """A token that the order of a request wants: a range of the prompt's tokens, and its number in it."""

    rid: str
    tokens: range
    number: int


class _Part(NamedTuple):
    """KV of some tokens of a range, from a number on."""

    number: int
    layers: Sequence[LayerKV]


class Taking:
    """Tokens that orders want, by the hashes of their pages, which have one token each."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._places: dict[str, _Place] = {}
        self._parts: defaultdict[tuple[str, range], list[_Part]] = defaultdict(list)
        self._complete: defaultdict[str, list[Pages]] = defaultdict(list)

    def want(self, rid: str, tokens: range, hashes: Sequence[str]) -> None:
        """A request wants the tokens of a range, whose pages have these hashes. Forgets requests that are over."""
        rids = (*(place.rid for place in self._places.values()), *(key[0] for key in self._parts), *self._complete)
        for other in {*rids} - {rid}:
            if not self._mailbox.is_open(other):
                self._forget(other)
        self._places |= {name: _Place(rid, tokens, number) for number, name in enumerate(hashes)}

    def wants(self, hashes: Sequence[str]) -> bool:
        """Whether any of these pages is wanted."""
        return any(name in self._places for name in hashes)

    def take(self, hashes: Sequence[str], layers: Sequence[LayerKV]) -> None:
        """Take from the KV of pages in a row what is wanted, and deliver each range that is complete."""
        places = [(index, self._places.pop(name)) for index, name in enumerate(hashes) if name in self._places]
        for (rid, tokens, _), group in groupby(places, lambda pair: (*pair[1][:2], pair[0] - pair[1].number)):
            rows = [*group]
            first, last = rows[0], rows[-1]
            parts = self._parts[rid, tokens]
            parts.append(_Part(first[1].number, [cut(layer, slice(first[0], last[0] + 1)) for layer in layers]))
            if sum(part.layers[0].keys.shape[1] for part in parts) == len(tokens):
                self._deliver(rid, tokens)

    def _forget(self, rid: str) -> None:
        self._places = {name: place for name, place in self._places.items() if place.rid != rid}
        self._complete.pop(rid, None)
        for key in [key for key in self._parts if key[0] == rid]:
            del self._parts[key]

    def _deliver(self, rid: str, tokens: range) -> None:
        parts = sorted(self._parts.pop((rid, tokens)), key=lambda part: part.number)
        layers = [joined(of_layer) for of_layer in zip(*(part.layers for part in parts), strict=True)]
        self._complete[rid].append(Pages(tokens.start, layers))
        self._mailbox.deliver(rid, self._complete[rid])
