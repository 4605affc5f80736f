"""Healing: computing exactly, slice by slice, what is not exact in a window or not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.window.ahead import Ahead, Tick, compute, slice_of
from kamera_agent.window.layout import Place, count_tokens
from kamera_agent.window.residence import Residence
from kamera_agent.window.resident import Resident, num_common


class Healing:
    """Heals one residence, and computes ahead beside it. tick: as of Engine.prefill()."""

    def __init__(self, engine: Engine, residence: Residence) -> None:
        self._engine = engine
        self._residence = residence

    def heal(self, places: Sequence[Place], tick: Tick, *, beside: bool) -> tuple[KVPool, list[Resident]]:
        """Compute what is not exact first in these places; returns a pool and its new residents, often none.

        Those of the present window's unchanged beginning are replaced. beside: whether the others are computed for a
        later turn, as far as they take no more room than the present window.
        """
        self._residence.is_healing = True
        try:
            return self._heal(places, tick, beside=beside)
        finally:
            self._residence.is_healing = False

    def _heal(self, places: Sequence[Place], tick: Tick, *, beside: bool) -> tuple[KVPool, list[Resident]]:
        residence = self._residence
        residence.recover()
        # A forward pass over a part of a long window would have the frequencies of a short one.
        if residence.is_long or self._engine.family.decoder.is_long(places[-1].end_position):
            return residence.pool, []
        num_same = num_common(places, residence.residents)
        exact = takewhile(lambda resident: resident.exact, residence.residents[:num_same])
        if (num_exact := sum(1 for _ in exact)) < num_same:
            return residence.pool, self._present(num_exact, num_same, tick)
        if beside and 0 < num_same < len(places):
            return self._ahead(places, num_same, tick)
        if beside:
            residence.ahead = None
        residence.fit()
        return residence.pool, []

    def _present(self, first: int, end: int, tick: Tick) -> list[Resident]:
        """Compute residents again from the first one on, which is not exact; those before it are."""
        residence = self._residence
        inexact = [*takewhile(lambda resident: not resident.exact, residence.residents[first:end])]
        places = slice_of([resident.place for resident in inexact])
        old = inexact[: len(places)]
        with residence.changing():
            residence.pool.reserve(count_tokens(place.item for place in places))
            residence.hidden, residence.unsettled = old, True
        try:
            for resident in old:
                residence.pool.hide(resident.slots)
            new = compute(self._engine, residence.pool, places, tick)
        except BaseException:
            # If this is interrupted, the next turn does it.
            residence.recover()
            raise
        with residence.changing():
            for resident in old:
                residence.pool.free(resident.slots)
            # Their origins are those of the last answer.
            new = [replace(resident, origin=before.origin) for resident, before in zip(new, old, strict=True)]
            residence.residents = [*residence.residents[:first], *new, *residence.residents[first + len(old) :]]
            residence.hidden, residence.unsettled = [], False
        return new

    def _ahead(self, places: Sequence[Place], num_same: int, tick: Tick) -> tuple[KVPool, list[Resident]]:
        """Compute what is next in an expected window, which has num_same places in common with this one."""
        residence, start = self._residence, places[num_same].order
        bound = residence.residents[-1].place.end_order
        fitting = places[: num_same + sum(place.end_order - start <= bound for place in places[num_same:])]
        size, ahead = fitting[-1].end_order, residence.ahead
        if ahead is None or num_common(fitting, ahead.residents) < num_same or ahead.pool.capacity < size:
            ahead = residence.ahead = Ahead(residence.pool, residence.residents[:num_same], size)
        return ahead.pool, ahead.compute(self._engine, fitting, tick)
