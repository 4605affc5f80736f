"""What limits the tokens of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Constraint(Protocol):
    """Limits the tokens of a reply, for example to a grammar."""

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits [vocab], with minus infinity for every token that must not come next."""

    def accept(self, token: int) -> None:
        """Advance past a token that mask allowed."""


@runtime_checkable
class Forcing(Protocol):
    """A constraint that may know which tokens come next, whatever the model says."""

    def forced(self) -> Sequence[int]:
        """The tokens that must come next, as far as that is certain; often none."""


def forced_by(constraint: object) -> Sequence[int]:
    """The tokens that a constraint forces; none where it does not know."""
    return constraint.forced() if isinstance(constraint, Forcing) else ()
