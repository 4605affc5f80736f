"""A reply of known figures, and a Kamera."""

from collections.abc import Iterator

import pytest

from kamera_agent import Kamera
from kamera_agent.window.plan import Origin, Plan, PlanRow
from kamera_agent.window.reply import Reply, Timings, Usage


def row(name: str, num_tokens: int, origin: Origin) -> PlanRow:
    return PlanRow(name, "image", num_tokens, 0, None, origin, exact=True)


@pytest.fixture
def reply() -> Reply:
    return Reply(
        text="secret",
        span_id="reply1",
        finish_reason="length",
        usage=Usage(
            tokens_computed=7,
            tokens_kept=30,
            tokens_moved=100,
            tokens_recalled=50,
            tokens_blind=0,
            tokens_switched=5,
            tokens_generated=4,
            encoder_calls=1,
            encoder_avoided=3,
            bytes_read=1000,
            bytes_written=2000,
        ),
        timings=Timings(
            plan_ms=2.0, rebuild_ms=3.0, prefill_ms=20.0, first_token_ms=26.0, decode_ms=600.0, settle_ms=4.0
        ),
        plan=Plan(
            (
                row("anchor", 30, "kept"),
                row("image1", 60, "moved"),
                row("image2", 40, "moved"),
                row("image3", 50, "recalled"),
                row("text1", 7, "computed"),
            )
        ),
    )


@pytest.fixture(scope="package")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera
