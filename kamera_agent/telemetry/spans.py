"""OpenTelemetry spans of answers, after the semantic conventions for generative AI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from kamera_agent.trouble import Trouble

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment] # an optional package; without it there are no spans

if TYPE_CHECKING:
    from kamera_agent.window.reply import Reply

OPERATION = "chat"

_trouble = Trouble(
    logging.getLogger("kamera_agent.telemetry"), "answers are recorded without spans", "spans are recorded again"
)


@contextmanager
def answer_span(model_name: str, conversation_id: str) -> Iterator[Callable[[Reply], None]]:
    """A span around one answer. Yields a function to call with the reply.

    Nothing is recorded without the extra "otel", or before an OpenTelemetry SDK is set up. A span holds no text. What
    the SDK fails at is logged once; the answer goes on.
    """
    if trace is None:
        yield _ignore
        return
    span: trace.Span = trace.INVALID_SPAN
    with _trouble.contained():
        # Not made the current span, because the pieces of one answer may be read from several contexts.
        span = trace.get_tracer("kamera_agent").start_span(
            f"{OPERATION} {model_name}",
            kind=trace.SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": OPERATION,
                "gen_ai.provider.name": "kamera",
                "gen_ai.request.model": model_name,
                "gen_ai.conversation.id": conversation_id,
            },
        )
    try:
        yield partial(_record, span)
    except Exception as error:
        with _trouble.contained():
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, str(error))
            span.set_attribute("error.type", type(error).__qualname__)
        raise
    finally:
        with _trouble.contained():
            span.end()


def _record(span: trace.Span, reply: Reply) -> None:
    usage, timings = reply.usage, reply.timings
    num_tokens = reply.plan.num_tokens()
    span.set_attributes(
        {
            "gen_ai.usage.input_tokens": num_tokens,
            "gen_ai.usage.output_tokens": usage.tokens_generated,
            "gen_ai.usage.cache_read.input_tokens": num_tokens - reply.plan.num_computed,
            "gen_ai.usage.cache_creation.input_tokens": reply.plan.num_computed,
            "gen_ai.response.finish_reasons": [reply.finish_reason],
            "gen_ai.response.time_to_first_chunk": timings.first_token_ms / 1e3,
            **{f"kamera.{name}": value for name, value in {**asdict(usage), **asdict(timings)}.items()},
        }
    )


def _ignore(reply: Reply) -> None:
    """Record nothing."""
