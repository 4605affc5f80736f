"""Policies: which screenshots the model sees, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from kamera_agent.errors import SettingError
from kamera_agent.options import whole


@dataclass(frozen=True, slots=True)
class KeepLast:
    """The newest `count` screenshots."""

    count: int

    def __post_init__(self) -> None:
        _read_count(self, "count", 0)

    def first(self, sizes: Sequence[int]) -> int:
        """Index of the first screenshot that stays. sizes: tokens of each, oldest first."""
        return max(len(sizes) - self.count, 0)


@dataclass(frozen=True, slots=True)
class Interval:
    """The newest `keep`; older ones leave `drop` at a time. A prefix cache breaks less often, the prompt is longer."""

    keep: int
    drop: int

    def __post_init__(self) -> None:
        _read_count(self, "keep", 0)
        _read_count(self, "drop", 1)

    def first(self, sizes: Sequence[int]) -> int:
        """Index of the first screenshot that stays."""
        over = max(len(sizes) - self.keep, 0)
        return over - over % self.drop


@dataclass(frozen=True, slots=True)
class Budget:
    """The newest screenshots whose tokens fit into `tokens` together. The newest one always stays."""

    tokens: int

    def __post_init__(self) -> None:
        _read_count(self, "tokens", 1)

    def first(self, sizes: Sequence[int]) -> int:
        """Index of the first screenshot that stays."""
        fitting = sum(total <= self.tokens for total in accumulate(reversed(sizes)))
        return max(len(sizes) - max(fitting, 1), 0)


Policy = KeepLast | Interval | Budget


def _read_count(policy: Policy, name: str, least: int) -> None:
    value = whole(name, getattr(policy, name))
    if value < least:
        raise SettingError(f"{name} is {value}; use {least} or more.")
    object.__setattr__(policy, name, value)
