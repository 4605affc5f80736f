"""What the answers of a trace cost, and what they would have cost otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer. number: within its conversation, from 1.

    computed, prefix, full: tokens of the prompt that were computed, that a prefix cache would have computed, and that a
    full prefill would have.
    """

    number: int
    conversation: str
    record: Record
    computed: int
    prefix: int
    full: int


def account(records: Iterable[Record]) -> list[Turn]:
    """The turns of a trace in order.

    The prefix cache holds the prompt of the conversation's last answer with its reply; what both begin with is spared.
    """
    turns: list[Turn] = []
    cached: dict[str, Sequence[tuple[str, int]]] = {}
    counts: dict[str, int] = {}
    for record in records:
        conversation, rows = record["conversation"], record["rows"]
        counts[conversation] = counts.get(conversation, 0) + 1
        prompt = [(row["id"], row["num_tokens"]) for row in rows]
        full = sum(size for _, size in prompt)
        computed = sum(row["num_tokens"] for row in rows if row["origin"] == "computed")
        prefix = full - _common(prompt, cached.get(conversation, []))
        turns.append(Turn(counts[conversation], conversation, record, computed, prefix, full))
        reply = record["reply"]
        cached[conversation] = [*prompt, (reply["id"], reply["num_tokens"])]
    return turns


def _common(prompt: Sequence[tuple[str, int]], cached: Sequence[tuple[str, int]]) -> int:
    """Tokens of the spans that both begin with."""
    common = 0
    for ours, theirs in zip(prompt, cached, strict=False):
        if ours != theirs:
            break
        common += ours[1]
    return common
