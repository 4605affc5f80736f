"""Spans, as an in-memory exporter of the OpenTelemetry SDK receives them."""

import subprocess
import sys
from time import sleep

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kamera_agent import Kamera, WindowTooLongError
from kamera_agent.agent import ChatKamera
from kamera_agent.telemetry.spans import answer_span
from kamera_agent.window.reply import Reply


@pytest.fixture(scope="module")
def collected() -> InMemorySpanExporter:
    """The exporter of the only provider that a process may have."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(collected: InMemorySpanExporter) -> InMemorySpanExporter:
    collected.clear()
    return collected


def test_the_attributes_of_a_reply(spans: InMemorySpanExporter, reply: Reply) -> None:
    with answer_span("m", "thread 1") as tell:
        tell(reply)
    (span,) = spans.get_finished_spans()
    assert span.name == "chat m"
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "kamera",
        "gen_ai.request.model": "m",
        "gen_ai.conversation.id": "thread 1",
        "gen_ai.usage.input_tokens": 187,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 180,
        "gen_ai.usage.cache_creation.input_tokens": 7,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.time_to_first_chunk": 0.026,
        "kamera.tokens_computed": 7,
        "kamera.tokens_kept": 30,
        "kamera.tokens_moved": 100,
        "kamera.tokens_recalled": 50,
        "kamera.tokens_blind": 0,
        "kamera.tokens_switched": 5,
        "kamera.tokens_stale": 0,
        "kamera.tokens_refreshed": 0,
        "kamera.tokens_tiled": 0,
        "kamera.tokens_generated": 4,
        "kamera.encoder_calls": 1,
        "kamera.encoder_avoided": 3,
        "kamera.bytes_read": 1000,
        "kamera.bytes_written": 2000,
        "kamera.plan_ms": 2.0,
        "kamera.rebuild_ms": 3.0,
        "kamera.prefill_ms": 20.0,
        "kamera.first_token_ms": 26.0,
        "kamera.decode_ms": 600.0,
        "kamera.settle_ms": 4.0,
    }


def test_answers_of_a_chat_model(spans: InMemorySpanExporter, kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a child of the caller's span. A stream that is left early has a span without a reply."""
    model = ChatKamera(kamera=kamera, max_tokens=8)
    with trace.get_tracer("caller").start_as_current_span("step") as step:
        message = model.invoke("Where is anna?", conversation="a")
        # Long enough that it is still being generated when it is left.
        monkeypatch.setitem(vars(kamera.family.chat), "stop_ids", frozenset())
        stream = model.stream("Where is anna?", conversation="b", max_tokens=400)
        next(stream)
        stream.close()
        while len(spans.get_finished_spans()) < 2:  # a stream that is left ends in its own thread
            sleep(0.01)
    whole, left, _ = spans.get_finished_spans()
    assert message.usage_metadata is not None
    for span, conversation in ((whole, "a"), (left, "b")):
        assert span.name == f"chat {model.model_name}"
        assert span.parent is not None
        assert span.parent.span_id == step.get_span_context().span_id
        assert (span.attributes or {})["gen_ai.conversation.id"] == conversation
    assert whole.attributes["gen_ai.usage.input_tokens"] == message.usage_metadata["input_tokens"]
    assert "gen_ai.usage.input_tokens" not in left.attributes


async def test_the_pieces_of_one_answer_come_from_several_contexts(spans: InMemorySpanExporter, kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera, max_tokens=8)
    pieces = [piece async for piece in model.astream("Where is anna?", conversation="c")]
    (span,) = spans.get_finished_spans()
    assert span.attributes["gen_ai.usage.output_tokens"] == pieces[-1].usage_metadata["output_tokens"]


def test_an_answer_that_fails(spans: InMemorySpanExporter, kamera: Kamera) -> None:
    model = ChatKamera(kamera=kamera)
    with pytest.raises(WindowTooLongError):
        model.invoke("anna " * 10**5, conversation="d")
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "WindowTooLongError"
    assert span.events[0].name == "exception"


def test_without_opentelemetry_nothing_is_recorded() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from kamera_agent.telemetry.spans import answer_span\n"
        "with answer_span('m', '') as tell:\n    tell(None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
