"""What the queries of a forward pass attend to, cut into parts of which most need no mask.

A run of queries at the places lo to hi of the window, whose slots are anywhere in the pool:

    slots        before lo                  lo to hi
    seen by      all of the run: no mask    each query up to its own: causal

Where tokens between the queries are not computed, a mask says what each of them sees between lo and hi. A sliding layer
adds slots that only some of the queries remember; all of an image that is seen both ways is seen by all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.kernels.slots import Index, index_of
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.runtime.kv_pool import CAUSAL, KVPool
from kamera_agent.runtime.masks import Places, additive, reached, remembered
from kamera_agent.runtime.slot_cache import Queries

# A run shorter than SHORT shares a mask with another one that is at most NEAR places before it. With more than
# MAX_GROUPS groups, all queries share one: each group costs calls of its own.
SHORT, NEAR, MAX_GROUPS = 32, 64, 8
# To copy the K and V of a slot takes as long as the attention of this number of queries to it, on a CPU.
COPY_QUERIES = 32


class Part(NamedTuple):
    """Some of the slots that a group of queries attends to.

    columns: the slots. mask: None, or additive, [1 or Q, columns]. is_causal: whether the columns are the slots of the
        queries, in order, of which each query sees those up to its own.
    """

    columns: Index
    mask: torch.Tensor | None = None
    is_causal: bool = False


class Group(NamedTuple):
    """Queries that attend together. rows: which of the pass. parts: disjoint, and all that they see."""

    rows: slice
    parts: tuple[Part, ...]


class Sight:
    """The groups of the queries of one forward pass."""

    def __init__(self, decoder: Decoder, pool: KVPool, queries: Queries) -> None:
        self._decoder, self._pool, self._queries = decoder, pool, queries
        self._index = queries.index
        self._groups: dict[tuple[str, torch.device], list[Group]] = {}

    def groups(self, layer: int, device: torch.device) -> list[Group]:
        """Those of a layer, for its device."""
        # A refresh computes fewer tokens from some layers on.
        if self._index is not self._queries.index:
            self._index, self._groups = self._queries.index, {}
        kind = self._decoder.kinds[layer]
        if (kind, device) not in self._groups:
            self._groups[kind, device] = make_groups(self._decoder, kind, self._pool, self._index, device)
        return self._groups[kind, device]


def make_groups(decoder: Decoder, kind: str, pool: KVPool, index: Index, device: torch.device) -> list[Group]:
    """The groups of the queries in the slots of an index, for a kind of layer: together, all rows in order."""
    slots = torch.arange(pool.capacity)[index if isinstance(index, slice) else index.to(pool.order.device)]
    keys = Places(pool.order, pool.block)
    queries = keys.at(slots)
    return [
        Group(rows, tuple(_parts(decoder, kind, keys, slots[rows], queries.at(rows), device)))
        for rows in _group_rows(queries)
    ]


def _group_rows(queries: Places) -> list[slice]:
    """The rows of each group."""
    order = queries.order
    if len(order) == 1:
        return [slice(0, 1)]
    breaks = ((order.diff() != 1) | (queries.block.diff() != 0)).nonzero()[:, 0] + 1
    bounds = [0, *breaks.tolist(), len(order)]
    runs = [slice(start, stop) for start, stop in pairwise(bounds)]
    # How far each run is from the one before; negative where that is later in the window.
    gaps = [0, *(order[breaks] - order[breaks - 1]).tolist()]
    near, groups = NEAR, _joined(runs, gaps, NEAR)
    while len(groups) > MAX_GROUPS and near < max(gaps):
        near, groups = 4 * near, _joined(runs, gaps, 4 * near)
    return groups if len(groups) <= MAX_GROUPS else [slice(0, len(order))]


def _joined(runs: Sequence[slice], gaps: Sequence[int], near: int) -> list[slice]:
    """Short runs that are near each other, as one."""
    groups: list[slice] = []
    last_is_short = False
    for run, gap in zip(runs, gaps, strict=True):
        is_short = run.stop - run.start < SHORT
        if is_short and last_is_short and 0 < gap <= near:
            groups[-1] = slice(groups[-1].start, run.stop)
        else:
            groups.append(run)
        last_is_short = is_short
    return groups


def _parts(
    decoder: Decoder, kind: str, keys: Places, slots: torch.Tensor, queries: Places, device: torch.device
) -> Iterator[Part]:
    """The parts of a group of queries in these slots."""
    if len(slots) == 1:
        by_all = (reached(decoder, kind, queries, keys) & remembered(decoder, kind, queries, keys))[0]
        yield _for_all(decoder, by_all, 1, device)
        return
    # What the first and the last of them reach and remember bounds what the others do.
    ends = queries.at(torch.stack([queries.order.argmin(), queries.order.argmax()]))
    reach, memory = reached(decoder, kind, ends, keys), remembered(decoder, kind, ends, keys)
    by_all = (reach & memory).all(0)
    by_some = reach.any(0) & memory.any(0) & ~by_all
    is_causal = _is_causal(decoder, kind, queries) and bool(memory[:, slots].all())
    if is_causal:
        by_all[slots] = by_some[slots] = False
    if by_all.any():
        yield _for_all(decoder, by_all, len(slots), device)
    if by_some.any():
        columns = _columns(by_some, len(slots), device)
        others = keys.at(columns)
        seen = reached(decoder, kind, queries, others) & remembered(decoder, kind, queries, others) & by_some[columns]
        yield Part(_on(columns, device), additive(seen, decoder.dtype, device))
    if is_causal:
        yield Part(index_of(slots, device), is_causal=True)


def _is_causal(decoder: Decoder, kind: str, queries: Places) -> bool:
    """Whether each of the queries sees those before it, and there is nothing between them."""
    both_ways = kind in decoder.both_ways_kinds and bool((queries.block != CAUSAL).any())
    return len(queries.order) > 1 and not both_ways and bool((queries.order.diff() == 1).all())


def _for_all(decoder: Decoder, seen: torch.Tensor, num_queries: int, device: torch.device) -> Part:
    """The part of the slots [S] bool that each of so many queries sees."""
    columns = _columns(seen, num_queries, device)
    has_others = isinstance(columns, slice) and not seen[columns].all()
    return Part(_on(columns, device), additive(seen[None, columns], decoder.dtype, device) if has_others else None)


def _columns(seen: torch.Tensor, num_queries: int, device: torch.device) -> Index:
    """The slots [S] bool as an index on the CPU for so many queries on a device.

    A slice, perhaps with others between them, or one by one.
    """
    slots = seen.nonzero()[:, 0]
    first, last = int(slots[0]), int(slots[-1])
    num_others = last - first + 1 - len(slots)
    # A GPU copies in no time, and its attention takes no mask.
    most = len(slots) * COPY_QUERIES // num_queries if device.type == "cpu" else 0
    return slice(first, last + 1) if num_others <= most else slots


def _on(columns: Index, device: torch.device) -> Index:
    return columns if isinstance(columns, slice) else sent(columns, device)
