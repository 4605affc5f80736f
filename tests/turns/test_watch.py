"""The guard: comparisons beside the answers, their budget, the fallback and the way back."""

import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface import Conversation
from models import TINY, kl, screenshot
from PIL import Image
from prometheus_client import CollectorRegistry

from kamera_agent import Guard, ImageContent, Kamera, Metrics, SettingError, TextContent, Trace
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.telemetry.drift import Drift, Witness
from kamera_agent.telemetry.trace import read_trace
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.message import Message
from kamera_agent.turns.watch import Budget, Watch
from kamera_agent.window.reply import Reply, Timings, Usage

LIMITS = Limits(max_conversations=4, max_bytes=1 << 30, max_string=None)
NEAR, FAR = Drift(0.01, agrees=True), Drift(2.0, agrees=False)


@pytest.fixture(scope="module")
def model() -> Any:
    """Its weights are large, so a chunk that has moved without being refreshed is far from a full prefill."""
    return build_model(TINY)


@pytest.fixture
def kamera(model: Any) -> Iterator[Kamera]:
    with Kamera(model, build_processor(), stale="keep", heal="never") as kamera:
        yield kamera


def see(chat: Chat, *seeds: int, conversation: str = "one") -> Reply:
    """Ask about screenshots."""
    parts: list[str | bytes] = []
    for seed in seeds:
        buffer = BytesIO()
        Image.fromarray(screenshot(seed)).save(buffer, "PNG")
        parts.append(buffer.getvalue())
    request = Request([Message("user", (*parts, "Where is anna?"))], conversation, max_tokens=2)
    with chat.answer(request) as stream:
        return stream.finish()


def slide(chat: Chat, kamera: Kamera, first: int, last: int) -> list[bool]:
    """Move on over three screenshots at a time, with a pause after each; whether each answer is exact."""
    answers = []
    for start in range(first, last):
        answers.append(see(chat, *range(start, start + 3)).plan.is_exact)
        kamera.settle()
    return answers


def scraped(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"kamera_{name}", {"model_name": "", **labels})


def test_a_drift_is_measured_while_no_answer_is_wanted(kamera: Kamera, model: Any, tmp_path: Path) -> None:
    """The second answer rests on screenshots that have moved; the first is exact and costs nothing.

    1. The drift of the second comes with the pause, to the record of the answer and its spans, and to the metrics.
    2. A plain window of another Kamera gives the same logits; Hugging Face computes the window anew. The KL is theirs.
    """
    registry, trace = CollectorRegistry(), Trace(tmp_path / "trace.jsonl")
    with Chat(kamera, None, {}, LIMITS, metrics=Metrics(registry), trace=trace, guard=Guard(share=1.0)) as chat:
        assert slide(chat, kamera, 0, 1) == [True]
        assert scraped(registry, "compared_answers_total", outcome="exact") == 1
        assert not see(chat, 1, 2, 3).plan.is_exact
        assert [record.drift for record in read_trace(trace.path)] == [None, None]
        kamera.settle()
    (_, record) = read_trace(trace.path)
    with Kamera(model, build_processor(), stale="keep", heal="never") as other:
        window = other.window()
        for start in (0, 1):
            pictures = [ImageContent(screenshot(seed)) for seed in range(start, start + 3)]
            window.sync([*pictures, TextContent("Where is anna?")])
            ours = window.logits()
    talk = Conversation(model, build_processor())
    reference = talk.say("user", *map(screenshot, (1, 2, 3)), "Where is anna?").logits()
    drawable = [token for token in range(len(ours)) if token not in kamera.family.placeholder_ids]
    assert record.drift
    assert record.drift.kl == pytest.approx(kl(reference[drawable], ours[drawable]), rel=0.01)
    assert record.drift.kl > 0.01
    assert [row.stale is not None for row in record.rows if row.kind == "image"] == [True, True, False]
    outcome = "agrees" if record.drift.agrees else "differs"
    assert scraped(registry, "compared_answers_total", outcome=outcome) == 1
    assert scraped(registry, "drift_kl_nats_sum") == pytest.approx(record.drift.kl)
    assert (scraped(registry, "comparing_seconds_total") or 0) > 0


def test_a_conversation_that_drifts_falls_back_and_comes_back(
    kamera: Kamera, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of two drift, two are exact; the next one drifts, four are exact. Another conversation is not concerned."""
    caplog.set_level(logging.INFO, "kamera_agent.guard")
    registry, trace = CollectorRegistry(), Trace(tmp_path / "trace.jsonl")
    guard = Guard(share=1.0, threshold=0.001, patience=2)
    with Chat(kamera, None, {}, LIMITS, metrics=Metrics(registry), trace=trace, guard=guard) as chat:
        answers = slide(chat, kamera, 0, 11)
        assert answers == [True, *[False] * 2, *[True] * 2, False, *[True] * 4, False]
        records = read_trace(trace.path)
        assert [record.exact_only for record in records] == [*[False] * 3, True, True, False, *[True] * 4, False]
        see(chat, 0, 1, 2, conversation="another")
        assert not see(chat, 1, 2, 3, conversation="another").plan.is_exact
    assert scraped(registry, "fallback_answers_total") == 6
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "INFO", "WARNING", "INFO", "WARNING"]
    assert "'one'" in lines[0][1]
    assert "threshold of 0.001" in lines[0][1]
    assert "its next 2 answers" in lines[0][1]
    assert f"a KL of {records[2].drift.kl:.2g} nats" in lines[0][1]  # type: ignore[union-attr]


def test_a_small_drift_changes_nothing(kamera: Kamera) -> None:
    with Chat(kamera, None, {}, LIMITS, guard=Guard(share=1.0, threshold=1e6, patience=1)) as chat:
        assert slide(chat, kamera, 0, 4) == [True, False, False, False]


def test_nothing_is_computed_on_the_time_of_an_answer(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many forward passes, of as many tokens, as without a guard; the comparisons come with the pause."""
    passes: list[int] = []
    forward_at = kamera._engine.forward_at

    def counted(pool: Any, slots: Any, embeds: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        passes.append(len(embeds))
        return forward_at(pool, slots, embeds, *rest, **named)

    monkeypatch.setattr(kamera._engine, "forward_at", counted)
    found = []
    for first, guard in ((10, None), (20, Guard(share=1.0))):
        with Chat(kamera, None, {}, LIMITS, guard=guard) as chat:
            for start in range(first, first + 3):
                see(chat, *range(start, start + 3))
            found.append(passes.copy())
            passes.clear()
            kamera.settle()
    assert found[0] == found[1]
    # Only the last answer is compared: nobody asks for the others any more.
    assert len(passes) == 1
    assert passes[0] > 3 * 26


def test_without_a_share_left_nothing_is_compared(kamera: Kamera, tmp_path: Path) -> None:
    """The comparison after the second answer takes what a hundred answers earn."""
    trace = Trace(tmp_path / "trace.jsonl")
    with Chat(kamera, None, {}, LIMITS, trace=trace, guard=Guard(share=1e-6, threshold=1e6)) as chat:
        slide(chat, kamera, 0, 6)
    assert [record.drift is not None for record in read_trace(trace.path)] == [False, True, *[False] * 4]


def test_a_drift_that_the_trace_measures_counts(kamera: Kamera, tmp_path: Path) -> None:
    registry, trace = CollectorRegistry(), Trace(tmp_path / "trace.jsonl", drift_every=1)
    guard = Guard(threshold=0.001, patience=1)
    with Chat(kamera, None, {}, LIMITS, metrics=Metrics(registry), trace=trace, guard=guard) as chat:
        assert [see(chat, *range(start, start + 3)).plan.is_exact for start in range(4)] == [True, False, True, False]
    assert scraped(registry, "drift_kl_nats_count") == 2


def test_a_window_that_goes_takes_its_comparison_with_it(kamera: Kamera, tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.jsonl")
    with Chat(kamera, None, {}, LIMITS, trace=trace, guard=Guard(share=1.0)) as chat:
        see(chat, 0, 1, 2)
        see(chat, 1, 2, 3)
    kamera.settle()
    assert [record.drift for record in read_trace(trace.path)] == [None, None]


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("kamera_agent.turns.watch.perf_counter", clock)
    return clock


def replied(seconds: float) -> Reply:
    timings = Timings(0.0, 0.0, 0.0, first_token_ms=750 * seconds, decode_ms=250 * seconds)
    return Reply("", None, "stop", Usage(*[0] * 11), timings, plan=None)  # type: ignore[arg-type]


def seen(logits: torch.Tensor) -> Witness:
    witness = Witness(None)
    witness.mask(logits)
    return witness


def test_comparisons_keep_within_their_share(clock: Clock) -> None:
    """Answers take 1 s and comparisons 7 s. Of 2000 answers those are compared that 1 % of the time allows."""
    watch, compared = Watch(Guard(), Budget(0.01), "one"), []

    def full_prefill(tick: Callable[[], None]) -> torch.Tensor:
        clock.now += 7.0
        return torch.zeros(2)

    for number in range(2000):
        is_due = watch.is_due
        watch.answered(replied(1.0), exact_only=False)
        if is_due:
            compared.append(number)
            watch.compare(seen(torch.zeros(2)), full_prefill, lambda *_: None, lambda: False)
    assert compared == [1, *range(701, 2000, 700)]


def test_what_gave_way_is_paid_for_and_tells_nothing(clock: Clock) -> None:
    """An answer is wanted at the third layer. A comparison that fails is logged, and tells nothing either."""
    budget, reports = Budget(0.5), []
    watch = Watch(Guard(threshold=0.0, patience=1), budget, "one")
    wanted = iter([False, False, True])

    def full_prefill(tick: Callable[[], None]) -> torch.Tensor:
        for _ in range(4):
            clock.now += 1.0
            tick()
        raise AssertionError("it did not give way")

    def report(drift: Drift | None, seconds: float) -> None:
        reports.append((drift, seconds))

    watch.answered(replied(8.0), exact_only=False)
    watch.compare(seen(torch.zeros(2)), full_prefill, report, lambda: next(wanted))
    assert budget.is_open
    watch.compare(seen(torch.zeros(2)), full_prefill, report, lambda: False)
    assert reports == [(None, 3.0), (None, 4.0)]
    assert not budget.is_open
    assert not watch.has_fallen_back


def test_what_has_drifted_once_is_compared_again_at_once() -> None:
    watch = Watch(Guard(patience=3), Budget(0.01), "one")
    assert not watch.is_due
    watch.measured(FAR)
    assert watch.is_due
    watch.measured(NEAR)
    assert not watch.is_due


def test_a_fallback_step_by_step(caplog: pytest.LogCaptureFixture) -> None:
    """f: drifts, n: does not, e: an exact answer; in capitals once the conversation has fallen back."""
    watch = Watch(Guard(patience=2), Budget(0.01), "one")
    story = ""
    for step in "f n f f E e f E E E e n f f E e".lower().split():
        exact_only = watch.has_fallen_back
        match step:
            case "e":
                watch.answered(replied(1.0), exact_only=exact_only)
            case _:
                watch.measured(FAR if step == "f" else NEAR)
        story += f" {step.upper() if watch.has_fallen_back else step}"
    # The second fallback is twice as long; after a small drift the next one is as short as the first.
    assert story == " f n f F E e F E E E e n f F E e"
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 3


def test_a_comparison_from_before_the_fallback_changes_nothing() -> None:
    """Nor does an answer that began before it."""
    watch = Watch(Guard(patience=1), Budget(0.01), "one")
    watch.measured(FAR)
    watch.measured(NEAR)
    watch.answered(replied(1.0), exact_only=False)
    assert watch.has_fallen_back
    watch.answered(replied(1.0), exact_only=True)
    assert not watch.has_fallen_back


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"share": 0}, "share is 0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"share": "1"}, "share is '1'"),
        ({"threshold": -1}, "threshold is -1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": 1.5}, "patience is 1.5"),
    ],
)
def test_bad_options(option: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Guard(**option)
