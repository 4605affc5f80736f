"""Drift: how far an answer's next-token distribution lies from that of a full prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from kamera_agent.window.sampler import Constraint


class Drift(NamedTuple):
    """Of an answer's first token.

    kl: KL divergence from the full prefill's distribution to the answer's, in nats. agrees: whether the same token is
    the likeliest. Both over the tokens that may be drawn, before temperature and any constraint.
    """

    kl: float
    agrees: bool


class Witness:
    """A Constraint that forbids nothing more than `inner` does, and remembers the logits of the first token."""

    def __init__(self, reference: torch.Tensor, inner: Constraint | None) -> None:
        """reference: next-token logits [vocab] of a full prefill of the same window."""
        self._reference = reference
        self._inner = inner
        self._first: torch.Tensor | None = None

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """As inner's."""
        if self._first is None:
            self._first = logits
        return logits if self._inner is None else self._inner.mask(logits)

    def accept(self, token: int) -> None:
        """As inner's."""
        if self._inner is not None:
            self._inner.accept(token)

    def measure(self) -> Drift:
        """The drift of an answer that has begun."""
        assert self._first is not None, "nothing was drawn"
        drawable = self._first.isfinite()
        ours, theirs = self._first[drawable], self._reference[drawable]
        return Drift(divergence(theirs, ours), bool(ours.argmax() == theirs.argmax()))


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """KL(reference || other) of two next-token distributions, in nats, for logits [vocab]."""
    theirs, ours = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return max(float((theirs.exp() * (theirs - ours)).sum()), 0.0)
