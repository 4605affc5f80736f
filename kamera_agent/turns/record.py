"""The record of an answer that goes into a trace."""

from __future__ import annotations

import base64
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from PIL import Image

from kamera_agent.telemetry.drift import Drift
from kamera_agent.window.reply import Reply
from kamera_agent.window.window import Window

# Pixels of a thumbnail's longer side.
SIDE = 160


def make_record(
    reply: Reply, window: Window, conversation_id: str, model: str, *, thumbnails: bool, drift: Drift | None
) -> dict[str, Any]:
    """What an answer rested on and what it cost: plain data, no text. drift: None where it was not measured."""
    rows = [asdict(row) for row in reply.plan.rows]
    chunks = [row["id"] for row in rows if row["kind"] in ("image", "frames")]
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": model,
        "conversation": conversation_id,
        "rows": rows,
        "reply": {"id": reply.span_id, "num_tokens": reply.usage.tokens_generated, "finish": reply.finish_reason},
        "usage": asdict(reply.usage),
        "timings": asdict(reply.timings),
        "memory": {"pool_bytes": window.pool_bytes, "dropped_bytes": window.dropped_bytes},
        "drift": drift and drift._asdict(),
        "thumbnails": {span_id: _thumbnail(window, span_id) for span_id in chunks} if thumbnails else {},
    }


def _thumbnail(window: Window, span_id: str) -> str:
    """A small JPEG of a span as base64."""
    pixels = window.pixels(span_id)
    image = Image.fromarray(pixels if pixels.ndim == 3 else pixels[0])
    image.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()
