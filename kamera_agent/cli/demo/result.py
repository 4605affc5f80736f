"""The figures of one turn, and of all turns together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, NamedTuple, Self, get_args

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
    """One turn, answered in three ways over the same window.

    number: from 1. process: 1 before the restart, 2 after it.
    tokens: of the whole window, by origin.
    num_computed: tokens that each way computed, those of refreshed spans by their share of the layers.
    first_token_ms: time to the first token of each way.
    remember_ms, heal_ms: time in which Kamera stores the new chunks after the answer, and then heals the window.
    truth: the right answer. answers: of each way, and of blind reuse.
    kl: KL divergence from the next-token distribution of the full prefill to that of Kamera, in nats.
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
    kl: float
    bytes_read: int

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """A result from the output of asdict()."""
        return cls(**{**facts, "chunks": tuple(ChunkResult(**chunk) for chunk in facts["chunks"])})

    def speedup(self, over: Way) -> float:
        """Time to the first token of another way, as a multiple of Kamera's."""
        return self.first_token_ms[over] / self.first_token_ms["kamera"]


class Totals(NamedTuple):
    """Sums over the turns."""

    num_turns: int
    num_right: dict[str, int]
    num_computed: dict[Way, int]
    first_token_ms: dict[Way, float]
    remember_ms: float
    heal_ms: float
    median_kl: float
    largest_kl: float
    bytes_read: int

    @classmethod
    def of(cls, results: Sequence[TurnResult]) -> Self:
        """Add up the turns, of which there must be at least one."""
        return cls(
            num_turns=len(results),
            num_right={name: sum(r.answers[name] == r.truth for r in results) for name in results[0].answers},
            num_computed={way: sum(r.num_computed[way] for r in results) for way in WAYS},
            first_token_ms={way: sum(r.first_token_ms[way] for r in results) for way in WAYS},
            remember_ms=sum(r.remember_ms for r in results),
            heal_ms=sum(r.heal_ms for r in results),
            median_kl=median(r.kl for r in results),
            largest_kl=max(r.kl for r in results),
            bytes_read=sum(r.bytes_read for r in results),
        )


def as_report(conditions: dict[str, Any], results: Sequence[TurnResult]) -> dict[str, Any]:
    """All figures, as JSON-serialisable data."""
    sizes = {chunk.name: chunk.num_tokens for result in results for chunk in result.chunks}
    return {
        "conditions": {**conditions, "tokens_per_chunk": sizes},
        "turns": [asdict(result) for result in results],
        "totals": Totals.of(results)._asdict(),
    }
