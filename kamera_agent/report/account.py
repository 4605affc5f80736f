"""The cost of the answers of a trace, and what a prefix cache and a full prefill would have cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kamera_agent.telemetry.record import AnswerRecord
from kamera_agent.window.plan import PlanRow


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer. number: within its conversation, from 1.

    computed, prefix, full: tokens of the prompt that were computed, those of refreshed spans by their share of the
    layers; that a prefix cache would have computed; and that a full prefill would have computed.
    """

    number: int
    conversation: str
    record: AnswerRecord
    computed: int
    prefix: int
    full: int


def account(records: Iterable[AnswerRecord]) -> list[Turn]:
    """The turns of a trace, in order.

    The prefix cache holds the prompt and the reply of the conversation's last answer, and saves what the next prompt
    shares with their beginning. A conversation that begins with the KV of another one finds it there as well.
    """
    turns: list[Turn] = []
    cached: dict[str, list[tuple[str | None, int]]] = {}
    counts: dict[str, int] = {}
    for record in records:
        conversation = record.conversation
        counts[conversation] = counts.get(conversation, 0) + 1
        full = sum(row.num_tokens for row in record.rows)
        computed = round(sum(row.num_computed for row in record.rows))
        prefix = full - _num_common(record.rows, cached.get(conversation))
        turns.append(Turn(counts[conversation], conversation, record, computed, prefix, full))
        prompt = [(row.id, row.num_tokens) for row in record.rows]
        cached[conversation] = [*prompt, (record.reply.id, record.reply.num_tokens)]
    return turns


def _num_common(rows: Sequence[PlanRow], cached: list[tuple[str | None, int]] | None) -> int:
    """Tokens of the spans that both begin with, and of the beginning of a text that was written anew after them.

    cached: None for the first answer of a conversation. What it keeps was computed for another one.
    """
    num_common = 0
    for number, row in enumerate(rows):
        if cached is None:
            is_common = row.origin == "kept" and not row.num_computed
        else:
            is_common = [(row.id, row.num_tokens)] == cached[number : number + 1]
        if not is_common:
            return num_common + row.num_begun
        num_common += row.num_tokens
    return num_common
