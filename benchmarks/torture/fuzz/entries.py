"""The places where bytes come from outside: what takes them there, and valid inputs to begin with."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from typing import NamedTuple

import numpy as np
from blake3 import blake3
from PIL import Image
from xxhash import xxh3_128_digest

from benchmarks.torture.records import versioned_record
from kamera_agent.report.account import account
from kamera_agent.report.page import make_page
from kamera_agent.store.archive import DIGEST_BYTES, MAGIC, read_archive, write_archive
from kamera_agent.store.codec import CHECKSUM_BYTES, decode_header, encode
from kamera_agent.telemetry.drift import Drift
from kamera_agent.telemetry.record import AnswerRecord, DriftRecord, Memory, ReplySpan
from kamera_agent.telemetry.trace import read_trace
from kamera_agent.turns.blocks import read_content
from kamera_agent.turns.tool_calls import ReplyReader
from kamera_agent.vision.image import FORMATS, decode_image
from kamera_agent.window.plan import PlanRow
from kamera_agent.window.reply import Timings, Usage

RECORDS = [versioned_record("r", 3), versioned_record("r/p", 8)]


class Entry(NamedTuple):
    """take: gives bytes to our code, which may raise errors of our tree only. seeds: valid inputs."""

    take: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def take_header(data: bytes) -> None:
    """The header of a record, with the right checksum half of the time: else nothing gets past that."""
    body = data[CHECKSUM_BYTES:]
    manifest = decode_header(xxh3_128_digest(body) + body if len(data) % 2 else data)
    assert manifest.header.num_bytes >= 0


def take_archive(data: bytes) -> None:
    """An archive, with all checksums and the last digest right half of the time."""
    with tempfile.TemporaryFile() as file:
        file.write(_reseal(data) if len(data) % 2 else data)
        file.seek(0)
        for record in read_archive(file):
            encode(record)


def _reseal(data: bytes) -> bytes:
    sealed, place = bytearray(data), len(MAGIC)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        while size := int.from_bytes(sealed[place : place + 4], "big"):
            start, stop = place + 4, place + 4 + size
            layers = json.loads(sealed[start + CHECKSUM_BYTES : stop])["layers"]
            sealed[start : start + CHECKSUM_BYTES] = xxh3_128_digest(sealed[start + CHECKSUM_BYTES : stop])
            place = stop + sum(value["num_bytes"] for layer in layers for value in layer["values"])
    del sealed[len(sealed) - DIGEST_BYTES :]
    return bytes(sealed) + blake3(sealed).digest()


def archive_seeds() -> list[bytes]:
    files = [io.BytesIO(), io.BytesIO()]
    for file, records in zip(files, (RECORDS, []), strict=True):
        write_archive(file, records)
    return [file.getvalue() + bytes(odd) for file in files for odd in (0, 1)]


def take_image(data: bytes) -> None:
    """A file in one of the accepted formats."""
    decode_image(data)


def image_seeds() -> list[bytes]:
    """Small images in every accepted format and several modes."""
    rng, seeds = np.random.default_rng(0), []
    for form in FORMATS:
        for mode in ("RGB", "L", "RGBA", "1", "P", "I;16"):
            image = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).convert("RGB")
            with suppress(OSError, ValueError, KeyError):
                file = io.BytesIO()
                (image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)).save(file, form)
                seeds.append(file.getvalue())
    return seeds


def take_reply(data: bytes) -> None:
    """The text of a reply, as it comes in pieces."""
    text, reader = data.decode("utf-8", "surrogateescape"), ReplyReader(is_forced=len(data) % 3 == 0)
    size = 1 + len(data) % 7
    for start in range(0, len(text), size):
        list(reader.feed(text[start : start + size]))
    list(reader.finish(cut=len(data) % 2 == 0))
    reader.parsed.message(text)


REPLIES = [
    "Let me look. <tool_call>\n"
    '{"name": "click", "arguments": {"x": 12.5, "y": [1, {"z": "\\u00fc"}]}}\n</tool_call> Done.',
    '<tool_call>{"name": "a\\"b", "arguments": {}}</tool_call><tool_call>{"name": "c"}</tool_call>',
    "No call < <tool_ at all",
]


def take_trace(data: bytes) -> None:
    """A trace, up to its page."""
    descriptor, path = tempfile.mkstemp()
    try:
        os.write(descriptor, data)
        make_page(account(read_trace(path)), "trace")
    finally:
        os.close(descriptor)
        os.unlink(path)


def trace_seeds() -> list[bytes]:
    usage = Usage(**{figure.name: 1 for figure in fields(Usage)})
    timings = Timings(**{figure.name: 1.5 for figure in fields(Timings)})
    rows = (
        PlanRow("anchor", "text", 3, 0, None, "computed", True),
        PlanRow("image1", "image", 100, 3, 103, "moved", False),
    )
    thumbnails = {"image1": base64.b64encode(b"picture").decode()}
    answer = AnswerRecord(
        *("2026-11-24T12:00:00.000+00:00", "pocket", "a", rows, ReplySpan("reply1", 3, "stop"), usage, timings),
        memory=Memory(1, 2),
        thumbnails=thumbnails,
    )
    drift = DriftRecord(answer.time, answer.conversation, Drift(0.01, agrees=True))
    lines = [json.dumps(asdict(record)) for record in (answer, drift)]
    return [f"{lines[0]}\n".encode(), "\n".join([*lines, lines[0], lines[0][:40]]).encode()]


def take_blocks(data: bytes) -> None:
    """The content of a message, as JSON from a client."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return
    for part in read_content(content):
        if isinstance(part, bytes):
            decode_image(part)


def block_seeds() -> list[bytes]:
    picture = base64.b64encode(image_seeds()[-1]).decode()
    url = f"data:image/png;base64,{picture}"
    return [
        json.dumps(content).encode()
        for content in (
            "a text",
            [{"type": "text", "text": "a"}, {"type": "image", "base64": picture, "mime_type": "image/png"}],
            [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}, "text"],
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}],
            [{"type": "tool_result", "content": [{"type": "text", "text": "b"}]}, {"type": "reasoning"}],
        )
    ]


ENTRIES = {
    "header": Entry(take_header, lambda: [encode(record).header for record in RECORDS]),
    "archive": Entry(take_archive, archive_seeds),
    "image": Entry(take_image, image_seeds),
    "reply": Entry(take_reply, lambda: [reply.encode() for reply in REPLIES]),
    "trace": Entry(take_trace, trace_seeds),
    "blocks": Entry(take_blocks, block_seeds),
}
