"""The pool of a window and its residents, which change together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch

from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.window.ahead import Ahead
from kamera_agent.window.layout import Item, Place
from kamera_agent.window.resident import Resident, num_begun, num_common


class Guess(NamedTuple):
    """A token that may come next, in its slot, and the logits [vocab] after it."""

    token: int
    slots: Slots
    logits: torch.Tensor


class Residence:
    """The KV of one window: a pool, and the residents and the reply that own its slots.

    An exception, such as the KeyboardInterrupt of Ctrl-C, may arrive at any point of a turn. While pool and residents
    are changed together, a mark says that they do not match; the mark is set before the change and cleared after it,
    and the turn that finds it set begins with an empty pool. Elsewhere a turn only writes into slots that no resident
    owns, and the next turn frees them. Neither relies on an exception handler, which could be interrupted as well.

    residents: in the order of the window as of the last turn.
    reply: the tokens of the reply that is being generated, each with its slot.
    guesses: tokens that were computed after it, although they are not drawn yet.
    is_long: whether the KV in the pool has the frequencies beyond the switch of the model's RoPE.
    unsettled: whether slots of the pool may be taken that neither a resident nor the reply owns.
    hidden: residents that are hidden from attention while they are computed again.
    ahead: the beginning of an expected window, beside this one.
    is_healing: whether a slice is being healed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_healing = False
        self._empty()

    def _empty(self) -> None:
        """Forget every resident, and take an empty pool."""
        self._torn = True
        self.pool = self._engine.new_pool()
        self.residents: list[Resident] = []
        self.reply: list[tuple[int, Slots]] = []
        self.guesses: list[Guess] = []
        self.is_long = False
        self.unsettled = False
        self.hidden: list[Resident] = []
        self.ahead: Ahead | None = None
        self._torn = False

    @property
    def shown(self) -> list[Resident]:
        """The residents; none after a change that was not finished. May be read from any thread while it is healed."""
        return [] if self._torn and not self.is_healing else self.residents

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV in use, expected windows included. May be read from any thread."""
        return self.pool.num_bytes + (self.ahead.pool.num_bytes if self.ahead else 0)

    @property
    def spares(self) -> list[Resident]:
        """The residents of the expected window."""
        return self.ahead.residents if self.ahead else []

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark the pool and the residents as torn while they are changed."""
        self._torn = True
        try:
            yield
        except BaseException:
            # Frees the memory now. If this is interrupted, the mark is still set.
            self._empty()
            raise
        self._torn = False

    def recover(self) -> None:
        """Put right what an interrupted or failed turn left, before anything is planned."""
        if self._torn:
            self._empty()
        elif self.unsettled:
            with self.changing():
                self.reply, self.guesses = [], []
                for resident in self.hidden:
                    self._engine.place(self.pool, resident.placed)
                self.hidden = []
                self.pool.reclaim([resident.slots for resident in self.residents])
                self.unsettled = False

    def adopt(self, source: Residence, places: Sequence[Place]) -> None:
        """Take a copy of the residents that another residence has at the beginning of these places.

        The one after them comes along, under an id of its own, where it is a text that begins as the one here does.
        """
        source.recover()
        num_same = num_common(places, source.residents)
        common, now = source.residents[:num_same], [*places[:num_same]]
        for place, resident in zip(places[num_same:][:1], source.residents[num_same:], strict=False):
            if num_begun(place, resident):
                item = resident.place.item
                common.append(resident)
                now.append(replace(resident.place, item=replace(item, id=f"{item.id}:adopted")))
        with self.changing():
            self._empty()
            slots = self.pool.take(source.pool, [resident.slots for resident in common])
            self.residents = [
                replace(resident, place=place, slots=copied)
                for place, resident, copied in zip(now, common, slots, strict=True)
            ]
            self.is_long = source.is_long

    def enter_reply(self, item: Item) -> None:
        """Make the reply that was generated a resident, as this item."""
        last = self.residents[-1]
        place = last.place.next(item)
        seen = replace(place.before, exact=last.exact)
        resident = Resident(place, self._reply_slots(), seen, "computed", last.exact)
        with self.changing():
            self.pool.join(resident.slots)
            self.residents, self.reply = [*self.residents, resident], []

    def settle(self, keep: int | None) -> None:
        """Let go of what a turn took for itself: all but the first `keep` residents; None keeps all."""
        with self.changing():
            gone = self.residents[len(self.residents) if keep is None else keep :]
            self.pool.free(Slots.of([*(resident.slots for resident in gone), *(guess.slots for guess in self.guesses)]))
            self.residents, self.guesses = self.residents[:keep], []
            self.unsettled = False
        self.fit()

    def fit(self) -> None:
        """Copy the pool into one that fits its residents, so that the next turn need not."""
        if self.pool.fits:
            return
        with self.changing():
            slots = self.pool.compact([resident.slots for resident in self.residents])
            self.residents = [replace(old, slots=new) for old, new in zip(self.residents, slots, strict=True)]

    def check_integrity(self) -> None:
        """Assert that every slot has exactly one owner, once the rest of an interrupted turn is put right."""
        if self._torn:
            self._empty()
        owners = [*(resident.slots for resident in self.residents), self._reply_slots()]
        if self.unsettled:
            self.pool.reclaim(owners)
        self.pool.check_integrity(owners)

    def _reply_slots(self) -> Slots:
        return Slots.of(slots for _, slots in self.reply)
