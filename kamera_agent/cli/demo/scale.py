"""The sizes in which the demo is played: the one place that says how large its windows are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from kamera_agent.cli.demo.trace import Turn, follow


@dataclass(frozen=True, slots=True)
class Scale:
    """A size of the demo.

    columns, rows: cells of a picture. in_sight: pictures in a window. day: as follow() takes it.
    num_before: turns at the beginning that fill the window and are not measured.
    restart_after: the process ends after this many measured turns; None: it plays them all.
    is_trained: the model is the pocket model, which can answer; else it has random weights, and only its times count:
        the full prefill is measured in the last turn only.
    """

    columns: int
    rows: int
    in_sight: int
    day: str
    num_before: int
    restart_after: int | None
    is_trained: bool

    @property
    def before(self) -> Turn:
        """The last turn before those that are measured."""
        return follow(self.day, self.in_sight)[self.num_before - 1]

    @property
    def measured(self) -> tuple[Turn, ...]:
        """The turns that are measured."""
        return follow(self.day, self.in_sight)[self.num_before :]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The measured turns [first, stop) of each process, counted from 0."""
        restarts = () if self.restart_after is None else (self.restart_after,)
        return list(pairwise((0, *restarts, len(self.measured))))


SCALES = {
    # Of 40 turns, 26 bring a new picture, of which 6 are a page with one price changed; 10 a page seen before.
    "day": Scale(
        columns=16,
        rows=12,
        in_sight=12,
        day=(
            "yard1 prices1 owners yard2 rooms yard3 prices2 keys yard4 rooms yard5 prices3 "
            "yard6 owners yard7 prices4 rooms yard8 yard9 <prices1 keys yard10 prices5 owners yard11 yard12 ~ rooms "
            "yard13 prices6 yard14 keys yard15 yard16 prices7 yard17 owners yard18 yard19 <yard9 yard20 rooms prices8 "
            "yard21 keys yard22 ~ yard23 prices9 yard24 owners yard25"
        ),
        num_before=12,
        restart_after=25,
        is_trained=True,
    ),
    # Six turns on 1,196 tokens a picture, over the model of benchmarks.window.
    "large": Scale(
        columns=23,
        rows=13,
        in_sight=4,
        day="yard1 prices1 owners rooms yard2 prices2 owners yard3 <prices1 yard4",
        num_before=4,
        restart_after=None,
        is_trained=False,
    ),
}
