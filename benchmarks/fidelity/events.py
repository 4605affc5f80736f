"""Events: the windows that were answered before, and the window after the event, in which their KV is reused.

recall_one         the last chunk that the answer depends on was dropped and comes back; the others are exact
recall_all         every chunk comes back, as after a restart
recall_front       a chunk that was seen alone comes back in front of others, which were computed without it
recall_after_slide the first chunk has left; the last was conditioned after survivors that still carry it, was dropped,
                   and comes back
second_context     every chunk was first seen after two strangers, and comes back after the others
reorder_3, _4      the chunks are in another order than the one they were conditioned in; all orders in turn
slide_one, _half   the first chunk, or the first half of the window, has left since
drop_middle        the second or the third of four chunks has left since, in turn
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from benchmarks.fidelity.cases import Case, Ground, draw_case

Indices = tuple[int, ...]


class Script(NamedTuple):
    """Windows as indices of the pictures of a case, in order.

    before: each was answered; a chunk was computed in the first that shows it. after: the window after the event.
    anew: whether that is a new window, so that all chunks come from the store.
    """

    before: tuple[Indices, ...]
    after: Indices
    anew: bool = False

    def lacks(self, place: int) -> bool:
        """Whether the chunk at a place after the event was computed without some of those before it, or after them in
        another order."""
        index, present = self.after[place], self.after[:place]
        seen = next(turn[: turn.index(index)] for turn in self.before if index in turn)
        return tuple(other for other in seen if other in present) != present


@dataclass(frozen=True, slots=True)
class Event:
    """script: what happens, by seed and by the last picture that the answers depend on (place in the window after).

    num_pictures, num_strangers: pictures of a case. one: only the last needed chunk is reused; the others are exact.
    reorders: the pictures change places.
    """

    script: Callable[[int, int], Script]
    num_pictures: int = 3
    num_strangers: int = 0
    one: bool = False
    reorders: bool = False

    def leaves(self, ground: Ground, scene: str) -> bool:
        """Whether the scene has questions about the pictures that stay."""
        return len(self.script(0, 0).after) >= min(ground.scenes[scene].tasks.values())

    def case(self, ground: Ground, scene: str, seed: int) -> Case:
        """A case whose questions can be answered after the event."""
        after = self.script(seed, 0).after
        return draw_case(
            ground,
            scene,
            self.num_pictures,
            after,
            seed,
            num_strangers=self.num_strangers,
            same_last=self.one,
        )

    def script_of(self, case: Case, seed: int) -> Script:
        """What happens to the pictures of a case."""
        return self.script(seed, last_needed(case))


def last_needed(case: Case) -> int:
    """Place in the window after the event of the last picture that the first question depends on."""
    return max(next(iter(case.questions.values())).needs)


def _recall_one(_seed: int, last: int) -> Script:
    return Script(((0, 1, 2), tuple(index for index in range(3) if index != last)), (0, 1, 2))


def _reorder(num_pictures: int) -> Callable[[int, int], Script]:
    before, *orders = permutations(range(num_pictures))

    def script(seed: int, _last: int) -> Script:
        return Script((before,), orders[seed % len(orders)])

    return script


def _drop_middle(seed: int, _last: int) -> Script:
    return Script(((0, 1, 2, 3),), (0, 2, 3) if seed % 2 else (0, 1, 3))


def _always(*before: Indices, after: Indices, anew: bool = False) -> Callable[[int, int], Script]:
    return lambda _seed, _last: Script(before, after, anew)


EVENTS: dict[str, Event] = {
    "recall_one": Event(_recall_one, one=True),
    "recall_all": Event(_always((0, 1, 2), after=(0, 1, 2), anew=True)),
    "recall_front": Event(_always((0,), (1, 2), after=(0, 1, 2))),
    "recall_after_slide": Event(_always((0, 1, 2), (1, 2, 3), (1, 2), after=(1, 2, 3)), num_pictures=4),
    "second_context": Event(_always((3, 4, 0), (3, 4, 1), (3, 4, 2), after=(0, 1, 2), anew=True), num_strangers=2),
    "reorder_3": Event(_reorder(3), reorders=True),
    "reorder_4": Event(_reorder(4), num_pictures=4, reorders=True),
    "slide_one": Event(_always((0, 1, 2, 3), after=(1, 2, 3)), num_pictures=4),
    "slide_half": Event(_always((0, 1, 2, 3), after=(2, 3)), num_pictures=4),
    "drop_middle": Event(_drop_middle, num_pictures=4),
}
