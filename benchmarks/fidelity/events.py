"""Events: the windows in which the KV of chunks was conditioned, and the window in which it is reused.

recall_one         the last chunk that the answer depends on was dropped and comes back; the others are exact
recall_all         every chunk comes back, as after a restart
reorder_3, _4      the chunks are in another order than the one they were conditioned in; all orders in turn
slide_one, _half   the first chunk, or the first half of the window, has left since
recall_after_slide the first chunk has left; the last was conditioned after survivors that still carry it, was dropped,
                   and comes back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from benchmarks.fidelity.bench import KV, Bench, Window
from benchmarks.fidelity.cases import Case, Ground, draw_case
from kamera_agent.chunk import Chunk


class Situation(NamedTuple):
    """A window after an event.

    places: indices in the case of the pictures in the window, in order. full: the window, fully computed. reused:
    indices of the chunks that a runtime does not compute. conditioned: their KV when they were last computed. other:
    the same, computed after the same chunks in another order.
    """

    places: list[int]
    full: Window
    reused: list[int]
    conditioned: dict[int, KV]
    other: dict[int, KV]


@dataclass(frozen=True, slots=True)
class Event:
    """num_pictures: pictures before the event. num_gone: pictures that leave, from the front.

    reorders: the pictures change places. one: only the last needed chunk is reused. late: recall_after_slide.
    """

    num_pictures: int = 3
    num_gone: int = 0
    reorders: bool = False
    one: bool = False
    late: bool = False

    def leaves(self, ground: Ground, scene: str) -> bool:
        """Whether the scene has questions about the pictures that stay."""
        return self.num_pictures - self.num_gone >= ground.scenes[scene].least and (scene != "now" or self.reorders)

    def case(self, ground: Ground, scene: str, seed: int) -> Case:
        """A case whose questions can be answered after the event."""
        return draw_case(
            ground, scene, self.num_pictures, seed, spared=self.num_gone, same_last=self.one, reorders=self.reorders
        )

    def happen(self, bench: Bench, case: Case, seed: int) -> Situation:
        """The situation after the event, for the pictures of a case."""
        chunks = [bench.chunk(picture) for picture in case.window]
        if self.late:
            return _recall_late(bench, chunks)
        before = _prefilled(bench, chunks)
        if self.reorders:
            orders = list(permutations(range(len(chunks))))
            order = orders[seed % len(orders)]
            conditioned = {place: before.read(index) for place, index in enumerate(order)}
            full = _prefilled(bench, [chunks[index] for index in order])
            return Situation([*order], full, [*range(len(order))], conditioned, conditioned)
        full = _prefilled(bench, chunks[self.num_gone :]) if self.num_gone else before
        reused = [max(next(iter(case.questions.values())).needs)] if self.one else [*range(len(full.chunks))]
        conditioned = {index: before.read(index + self.num_gone) for index in reused}
        places = [*range(self.num_gone, len(chunks))]
        return Situation(places, full, reused, conditioned, _after_another_order(bench, full, reused))


EVENTS: dict[str, Event] = {
    "recall_one": Event(one=True),
    "recall_all": Event(),
    "reorder_3": Event(reorders=True),
    "reorder_4": Event(num_pictures=4, reorders=True),
    "slide_one": Event(num_pictures=4, num_gone=1),
    "slide_half": Event(num_pictures=4, num_gone=2),
    "recall_after_slide": Event(num_pictures=4, num_gone=1, late=True),
}


def _prefilled(bench: Bench, chunks: Sequence[Chunk]) -> Window:
    window = bench.window(chunks)
    window.compute(range(len(chunks)))
    return window


def _after_another_order(bench: Bench, full: Window, reused: Sequence[int]) -> dict[int, KV]:
    """KV of each reused chunk after its antecedents in reverse order. A single antecedent has no other order."""
    others: dict[int, KV] = {}
    for index in reused:
        antecedents = full.chunks[:index][::-1]
        window = full if index < 2 else _prefilled(bench, [*antecedents, full.chunks[index]])
        others[index] = window.read(index)
    return others


def _recall_late(bench: Bench, chunks: Sequence[Chunk]) -> Situation:
    before = _prefilled(bench, chunks[:-1])
    shown, last = list(chunks[1:]), len(chunks) - 2
    after = bench.window(shown)
    for index in range(last):
        after.put(index, before.read(index + 1))
    after.compute([last])
    conditioned = {index: after.read(index) for index in range(len(shown))}
    full = _prefilled(bench, shown)
    return Situation([*range(1, len(chunks))], full, [*range(len(shown))], conditioned, conditioned)
