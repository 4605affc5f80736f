"""Choosing the next token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import TypedDict, cast

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kamera_agent.errors import SettingError
from kamera_agent.window.constraint import Constraint, forced_by

# Temperatures beyond these choose as these do; float32 could not divide by them.
COLDEST, HOTTEST = 1e-30, 1e30


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    temperature: 0 is greedy. top_p: share of probability kept, above 0 and up to 1. top_k: tokens kept, 0 for all.
    seed: makes a sampled reply repeatable, from -2**63 to 2**64 - 1; None draws a seed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise SettingError(f"temperature is {self.temperature}; use 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise SettingError(f"top_p is {self.top_p}; use a share above 0 and up to 1.")
        if self.top_k < 0:
            raise SettingError(f"top_k is {self.top_k}; use 0 (all) or more.")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise SettingError(f"seed is {self.seed}; use an integer of 64 bits.")


class SamplingOptions(TypedDict, total=False):
    """The fields of Sampling, as keyword arguments. None stands for the default."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None


class Sampler:
    """Draws tokens for one reply. never: token ids that are not drawn, however likely.

    Raises SettingError for a constraint without the methods of one.
    """

    def __init__(self, sampling: Sampling, never: Iterable[int], constraint: Constraint | None = None) -> None:
        if not isinstance(constraint, Constraint | None):
            raise SettingError(f"constraint is {short(constraint)}; use an object with the methods mask and accept.")
        self._never = torch.tensor(sorted(never), dtype=torch.long)
        self._constraint = constraint
        self._forced: Sequence[int] | None = None
        self._greedy = sampling.temperature == 0
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._warpers = LogitsProcessorList()
        if not self._greedy:
            self._warpers.append(TemperatureLogitsWarper(min(max(sampling.temperature, COLDEST), HOTTEST)))
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def draw(self, logits: torch.Tensor) -> int:
        """One token id, for next-token logits [vocab] in float32."""
        # The id of a placeholder may be outside the vocabulary.
        never = self._never[self._never < len(logits)].to(logits.device)
        allowed = logits.index_fill(0, never, float("-inf"))
        if self._constraint is None:
            return self._choose(allowed)
        masked = self._constraint.mask(allowed)
        token, *forced = self.forced or (self._choose(masked),)
        self._constraint.accept(token)
        # What is forced after the last of them is asked when it is needed.
        self._forced = forced or None
        return token

    @property
    def forced(self) -> Sequence[int]:
        """The tokens that come next, whatever the logits; often none."""
        if self._forced is None:
            self._forced = forced_by(self._constraint)
        return self._forced

    def _choose(self, logits: torch.Tensor) -> int:
        if self._greedy:
            return int(logits.argmax())
        # Warpers take the tokens before, which these three ignore.
        nothing_before = cast(torch.LongTensor, torch.empty(1, 0, dtype=torch.long))
        # The likeliest token at zero: no temperature overflows there.
        scores = self._warpers(nothing_before, cast(torch.FloatTensor, (logits - logits.max())[None].cpu()))
        return int(torch.multinomial(scores.softmax(-1)[0], 1, generator=self._generator))
