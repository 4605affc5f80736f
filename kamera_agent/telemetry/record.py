"""The record of an answer in a trace: one type for its writer, its reader and its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator, StringConstraints, Tag, TypeAdapter

from kamera_agent.telemetry.drift import Drift
from kamera_agent.vision.thumbnail import thumbnail
from kamera_agent.window.plan import PlanRow
from kamera_agent.window.reply import FinishReason, Reply, Timings, Usage

if TYPE_CHECKING:
    from kamera_agent.window.window import Window

# Nothing else: the page of a trace puts it into a URL.
Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
# Pixels of a thumbnail's longer side.
THUMBNAIL_SIDE = 160


def _complete(type_of: type[Usage | Timings], figures: Any) -> Any:
    """The figures of a JSON record, with 0 for each that the version that wrote it did not know."""
    return {figure.name: 0 for figure in fields(type_of)} | figures if isinstance(figures, dict) else figures


@dataclass(frozen=True, slots=True)
class ReplySpan:
    """The reply as a span of the window. id: None when it is empty."""

    id: str | None
    num_tokens: int
    finish: FinishReason


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the window's KV pool, and of its dropped spans that can be recalled."""

    pool_bytes: int = 0
    dropped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """The spans that an answer rested on, and its cost. No text of the window or the reply.

    The names of the fields are the names in the JSON.

    time: ISO 8601, UTC. rows: the plan. drift: None where it was not measured. exact_only: whether the conversation had
    fallen back to exact KV. thumbnails: JPEGs in base64, by span id.
    """

    time: str
    model: str
    conversation: str
    rows: tuple[PlanRow, ...]
    reply: ReplySpan
    usage: Annotated[Usage, BeforeValidator(partial(_complete, Usage))]
    timings: Annotated[Timings, BeforeValidator(partial(_complete, Timings))]
    memory: Memory = Memory()
    drift: Drift | None = None
    exact_only: bool = False
    thumbnails: Mapping[str, Base64] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriftRecord:
    """The drift of an answer, measured after its record was written. answer: the time of that record."""

    answer: str
    conversation: str
    drift: Drift


def _kind(value: Any) -> str:
    return "drift" if isinstance(value, dict) and "answer" in value else "answer"


# Validates JSON from outside. Fields that it does not know are ignored: newer versions may write more.
RECORDS: TypeAdapter[AnswerRecord | DriftRecord] = TypeAdapter(
    Annotated[
        Annotated[AnswerRecord, Tag("answer")] | Annotated[DriftRecord, Tag("drift")],
        Discriminator(_kind),
    ]
)


def make_record(
    reply: Reply, window: Window, conversation_id: str, model: str, *, thumbnails: bool, drift: Drift | None
) -> AnswerRecord:
    """The record of an answer that was just given. drift: None where it was not measured."""
    chunk_ids = [row.id for row in reply.plan.rows if row.kind in ("image", "frames")]
    return replace(
        plain_record(reply, conversation_id, model),
        memory=Memory(window.pool_bytes, window.dropped_bytes),
        drift=drift,
        exact_only=window.exact_only,
        thumbnails={span_id: _thumbnail(window, span_id) for span_id in chunk_ids} if thumbnails else {},
    )


def plain_record(reply: Reply, conversation_id: str, model: str) -> AnswerRecord:
    """The record of an answer without what its window knows."""
    return AnswerRecord(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        model=_sound(model),
        conversation=_sound(conversation_id),
        rows=reply.plan.rows,
        reply=ReplySpan(reply.span_id, reply.usage.tokens_generated, reply.finish_reason),
        usage=reply.usage,
        timings=reply.timings,
    )


def _sound(text: str) -> str:
    """A text without lone surrogates, which JSON could not be read with."""
    return text.encode("utf-8", "replace").decode()


def _thumbnail(window: Window, span_id: str) -> str:
    """A small JPEG of a span in base64; of a group of frames, the first."""
    pixels = window.pixels(span_id)
    return thumbnail(pixels if pixels.ndim == 3 else pixels[0], THUMBNAIL_SIDE)
