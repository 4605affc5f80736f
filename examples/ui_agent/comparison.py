"""Comparing two runs of the agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from examples.ui_agent.actor import Record
from examples.ui_agent.oracle import Move
from examples.ui_agent.turn import Turn
from kamera_agent.telemetry.drift import divergence


@dataclass(frozen=True, slots=True)
class Step:
    """One step of both runs. kl: KL(plain || cached) of their next-token distributions, in nats."""

    number: int
    move: Move
    num_screens: int
    plain: Turn
    cached: Turn
    kl: float

    @property
    def same(self) -> bool:
        """Whether both gave the same answer."""
        return self.plain.answer == self.cached.answer


def compare(plain: Sequence[Record], cached: Sequence[Record]) -> list[Step]:
    """Pair the steps of two runs. Raises RuntimeError if they saw different screens."""
    steps = []
    for number, (one, other) in enumerate(zip(plain, cached, strict=True), start=1):
        if (one.move, one.screens) != (other.move, other.screens):
            raise RuntimeError(f"In step {number} the two runs saw different screens, after {one.move}, {other.move}.")
        kl = divergence(one.turn.logits, other.turn.logits)
        steps.append(Step(number, one.move, len(one.screens), one.turn, other.turn, kl))
    return steps
