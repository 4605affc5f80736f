"""Situations: the KV of chunks after an event, played on a bench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.fidelity.bench import Bench, Window
from benchmarks.fidelity.cases import Case
from benchmarks.fidelity.events import Event, Indices, Script, last_needed
from benchmarks.fidelity.state import KV
from kamera_agent.chunk import Chunk


class Situation(NamedTuple):
    """A window after an event. Chunks have the indices of their places in it.

    full: the window, fully computed. reused: the chunks that a runtime does not compute. lacking: those of them that
    were computed without some of the chunks before them, or after them in another order. held: their KV as computed
    before the event. fitted: the KV that patches are fitted to: `held`, or that of the window itself if the chunks are
    seen in it for the second time; then `held` is their base. other: KV after the same chunks in another order; empty
    where no method asks for it. before: KV of the chunks of the last window before the event, in its order.
    """

    full: Window
    reused: list[int]
    lacking: list[int]
    held: dict[int, KV]
    fitted: dict[int, KV]
    other: dict[int, KV]
    before: list[KV]

    @property
    def has_base(self) -> bool:
        """Whether patches are fitted to another context than the one in which the chunks were first computed."""
        return self.fitted is not self.held


def happen(bench: Bench, event: Event, case: Case, seed: int, *, orders: bool = True) -> Situation:
    """The situation after an event, for the pictures of a case. orders: whether to compute `other`."""
    script = event.script_of(case, seed)
    chunks = [bench.chunk(picture) for picture in case.pictures]
    known = computed_before(bench, chunks, script)
    full = bench.prefilled(tuple(chunks[index] for index in script.after))
    reused = [last_needed(case)] if event.one else [*range(len(script.after))]
    lacking = [place for place in reused if script.lacks(place)]
    held = {place: known[script.after[place]] for place in reused}
    fitted = {place: full.read(place) for place in reused} if event.num_strangers else held
    other = held if event.reorders else _after_another_order(bench, full, reused if orders else ())
    before = [known[index] for index in script.before[-1]]
    return Situation(full, reused, lacking, held, fitted, other, before)


def computed_before(bench: Bench, chunks: Sequence[Chunk], script: Script) -> dict[int, KV]:
    """KV of the chunks that were in a window before the event, by index, as each was first computed."""
    known: dict[int, KV] = {}
    for turn in script.before:
        window = _answered(bench, chunks, turn, known)
        known |= {index: window.read(place) for place, index in enumerate(turn) if index not in known}
    return known


def _answered(bench: Bench, chunks: Sequence[Chunk], turn: Indices, known: dict[int, KV]) -> Window:
    """The window of a turn: known chunks as they are, and the others computed after them."""
    shown = tuple(chunks[index] for index in turn)
    if not known.keys() & set(turn):
        return bench.prefilled(shown)
    window = bench.window(shown)
    for place, index in enumerate(turn):
        if index in known:
            window.put(place, known[index])
    if new := [place for place, index in enumerate(turn) if index not in known]:
        window.compute(new)
    return window


def _after_another_order(bench: Bench, full: Window, reused: Sequence[int]) -> dict[int, KV]:
    """KV of each reused chunk after its antecedents in reverse order. A single antecedent has no other order."""
    others: dict[int, KV] = {}
    for index in reused:
        antecedents = full.chunks[:index][::-1]
        window = full if index < 2 else bench.prefilled((*antecedents, full.chunks[index]))
        others[index] = window.read(index)
    return others
