"""The figures of one turn, and of all turns together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, Self, get_args

from kamera_agent.window.plan import Origin

Way = Literal["kamera", "prefix", "full"]
WAYS: tuple[Way, ...] = get_args(Way)


def order_of(number: int) -> tuple[Way, ...]:
    """The order in which a turn measures the ways. In three turns in a row, each way is once at each place."""
    first = number % len(WAYS)
    return WAYS[first:] + WAYS[:first]


# The origins that the trace can show; nothing is blind by default.
ORIGINS: tuple[Origin, ...] = ("kept", "moved", "recalled", "computed")


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """A chunk of the window with the origin of its KV. match, error: of the KV that it takes over."""

    name: str
    num_tokens: int
    origin: Origin
    match: str | None
    error: float | None


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn, answered in several ways over the same window.

    number: from 1. process: 1 before the restart, 2 after it.
    tokens: of the whole window, by origin.
    num_computed: tokens that each way computed, those of refreshed spans by their share of the layers.
    first_token_ms: time to the first token of each way that was measured.
    remember_ms, heal_ms: time in which Kamera stores the new chunks after the answer, and then heals the window.
    truth: the right answer; "" from a model that is not trained. answers: of each way, and of blind reuse.
    kl: KL divergence from the next-token distribution of the full prefill to that of Kamera, in nats; None without one.
    bytes_read: KV and factors read from the store.
    """

    number: int
    process: int
    event: str
    question: str
    truth: str
    answers: dict[str, str]
    chunks: tuple[ChunkResult, ...]
    tokens: dict[Origin, int]
    num_computed: dict[Way, int]
    first_token_ms: dict[Way, float]
    remember_ms: float
    heal_ms: float
    kl: float | None
    bytes_read: int

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """A result from the output of asdict()."""
        return cls(**{**facts, "chunks": tuple(ChunkResult(**chunk) for chunk in facts["chunks"])})

    @property
    def wrong(self) -> list[str]:
        """The ways whose answers are wrong."""
        return [name for name, answer in self.answers.items() if answer != self.truth]


@dataclass(frozen=True, slots=True)
class Totals:
    """All turns together.

    first_token_ms: medians over the turns. prefix_over_kamera, full_over_kamera: ratios of these medians.
    right: right answers of each way, and of blind reuse; None for a model that is not trained.
    largest_kl: None if no turn has one.
    """

    num_turns: int
    first_token_ms: dict[Way, float]
    prefix_over_kamera: float
    full_over_kamera: float
    right: dict[str, int | None]
    largest_kl: float | None
    num_computed: dict[Way, int]
    remember_ms: float
    heal_ms: float
    bytes_read: int

    @classmethod
    def of(cls, results: Sequence[TurnResult]) -> Self:
        """Sum up the turns. At least one of them has a full prefill."""
        can_be_right = bool(results[0].truth)
        ms = {way: median(r.first_token_ms[way] for r in results if way in r.first_token_ms) for way in WAYS}
        return cls(
            num_turns=len(results),
            first_token_ms=ms,
            prefix_over_kamera=ms["prefix"] / ms["kamera"],
            full_over_kamera=ms["full"] / ms["kamera"],
            right={
                name: sum(name not in r.wrong for r in results) if can_be_right else None
                for name in results[-1].answers
            },
            largest_kl=max((r.kl for r in results if r.kl is not None), default=None),
            num_computed={way: sum(r.num_computed[way] for r in results) for way in WAYS},
            remember_ms=sum(r.remember_ms for r in results),
            heal_ms=sum(r.heal_ms for r in results),
            bytes_read=sum(r.bytes_read for r in results),
        )


def as_report(conditions: dict[str, Any], results: Sequence[TurnResult]) -> dict[str, Any]:
    """All figures, as JSON-serialisable data."""
    sizes = {chunk.name: chunk.num_tokens for result in results for chunk in result.chunks}
    return {
        **asdict(Totals.of(results)),
        "conditions": {**conditions, "tokens_per_chunk": sizes},
        "turns": [asdict(result) for result in results],
    }
