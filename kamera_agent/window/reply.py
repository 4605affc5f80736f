"""What an answer carries besides its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kamera_agent.chunk import Chunk
from kamera_agent.window.assembly import Assembled
from kamera_agent.window.plan import Plan
from kamera_agent.window.planner import make_plan

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost and what it was spared.

    tokens_*: tokens of the window by the origin of their KV. tokens_switched: those among the computed whose KV was
    there, but of other RoPE frequencies than the window has at its length (longrope). tokens_generated: tokens of the
    reply.
    encoder_calls, encoder_avoided: chunks that went through the vision encoder, and those that did not have to.
    bytes_read: KV and factors read from the store for this turn.
    bytes_written: KV and factors handed to the store since the window's previous turn, off the critical path.
    """

    tokens_computed: int
    tokens_kept: int
    tokens_moved: int
    tokens_recalled: int
    tokens_blind: int
    tokens_switched: int
    tokens_generated: int
    encoder_calls: int
    encoder_avoided: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock milliseconds of a turn.

    plan: deciding, and reading the store. rebuild: relocating and recalling. prefill: computing the new tokens.
    first_token: all of these and the first draw. decode: the rest of the reply. On a GPU work is queued and waited for
        at the first draw, so that only first_token and decode are whole there.
    """

    plan_ms: float
    rebuild_ms: float
    prefill_ms: float
    first_token_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    span_id: id of the reply's span in the window; None when it is empty.
    finish_reason: "stop" at a stop token, "length" at max_new_tokens, at the end of the window, or where its RoPE would
        switch frequencies (longrope); the next answer goes on beyond.
    """

    text: str
    span_id: str | None
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    plan: Plan


def make_usage(assembled: Assembled, num_generated: int, bytes_written: int) -> Usage:
    """The account of a turn."""
    plan = make_plan(assembled.steps)
    num_chunks = sum(isinstance(step.piece.run, Chunk) for step in assembled.steps)
    return Usage(
        tokens_computed=plan.num_tokens("computed"),
        tokens_kept=plan.num_tokens("kept"),
        tokens_moved=plan.num_tokens("moved"),
        tokens_recalled=plan.num_tokens("recalled"),
        tokens_blind=plan.num_tokens("blind"),
        tokens_switched=sum(
            len(step.piece.run.token_ids) for step in assembled.steps if step.switched and step.origin == "computed"
        ),
        tokens_generated=num_generated,
        encoder_calls=assembled.encoder_calls,
        encoder_avoided=num_chunks - assembled.encoder_calls,
        bytes_read=assembled.bytes_read,
        bytes_written=bytes_written,
    )


def make_timings(assembled: Assembled, first_token_ms: float, decode_ms: float) -> Timings:
    """The timings of a turn."""
    return Timings(assembled.plan_ms, assembled.rebuild_ms, assembled.prefill_ms, first_token_ms, decode_ms)
