"""Drift: the distance of an answer's next-token distribution from that of a full prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kamera_agent.window.constraint import forced_by

if TYPE_CHECKING:
    import torch

    from kamera_agent.window.constraint import Constraint


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of an answer's first token.

    kl: KL divergence from the full prefill's distribution to the answer's, in nats. agrees: whether both have the same
    likeliest token. Both over the tokens that may be drawn, before temperature and any constraint.
    """

    kl: float
    agrees: bool


class Witness:
    """A Constraint that forbids what `inner` forbids, and remembers the logits of the first token."""

    def __init__(self, inner: Constraint | None) -> None:
        self._inner = inner
        self._first: torch.Tensor | None = None

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """See Constraint."""
        if self._first is None:
            self._first = logits
        return logits if self._inner is None else self._inner.mask(logits)

    def accept(self, token: int) -> None:
        """See Constraint."""
        if self._inner is not None:
            self._inner.accept(token)

    def forced(self) -> Sequence[int]:
        """See Forcing."""
        return forced_by(self._inner)

    def measure(self, reference: torch.Tensor) -> Drift:
        """The drift from the next-token logits [vocab] of a full prefill, once the first token is drawn."""
        assert self._first is not None, "nothing was drawn"
        # The answer's logits are -inf for tokens that are never drawn; the reference still has numbers there.
        drawable = self._first.isfinite()
        ours, theirs = self._first[drawable], reference[drawable]
        return Drift(divergence(theirs, ours), bool(ours.argmax() == theirs.argmax()))


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """KL(reference || other) of two next-token distributions, in nats, for logits [vocab]."""
    theirs, ours = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    # Of equal distributions, rounding may leave a sum just below 0.
    return max(float((theirs.exp() * (theirs - ours)).sum()), 0.0)
