"""While no answer is wanted, windows become what a full prefill would make of them."""

import itertools
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any
from weakref import ref

import pytest
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot
from test_memory import needed_bytes

from kamera_agent import (
    ImageContent,
    Kamera,
    StoreClosedError,
    TextContent,
    UnknownSpanError,
    Window,
)
from kamera_agent.pocket.model import PocketProcessor

EDITS = ["slide", "reorder", "recall in front", "drop the middle one", "a text in front"]


def window_of(kamera: Kamera, num_images: int = 4) -> tuple[Window, list[str]]:
    """Images, each with a text after it, answered over once; and the ids of all of them."""
    window, ids = kamera.window(), []
    for number in range(num_images):
        ids += [window.add_image(screenshot(number)), window.add_text(f"screen {number}")]
    window.logits("what?")
    return window, ids


def edit(window: Window, ids: list[str], how: str) -> None:
    images = ids[::2]
    match how:
        case "slide":
            window.slide(2)
        case "reorder":
            window.reorder([images[2], images[0], images[3], images[1]])
        case "recall in front":
            window.drop(images[2])
            window.logits("and?")
            window.recall(images[2], at=images[0])
        case "drop the middle one":
            window.drop(images[1])
        case "a text in front":
            window.sync([TextContent("Look!"), *ids])


@pytest.mark.parametrize("how", EDITS)
def test_asked_again_after_healing_it_is_exact(make: MakeKamera, model: Any, how: str) -> None:
    kamera = make(model, heal="idle", stale="keep")
    window, ids = window_of(kamera)
    edit(window, ids, how)
    moved = window.logits("and?")
    assert max_error(window.reference_logits("and?"), moved) > 1e-3
    assert kamera.settle()
    assert all(span.exact and span.stale is None for span in window.spans)
    window.check_integrity()
    assert {row.origin for row in window.plan().rows} == {"kept"}
    assert max_error(window.reference_logits("and?"), window.logits("and?")) <= 1e-4
    assert kamera.settle()


@pytest.mark.parametrize("fidelity", ["patched", "exact"])
def test_the_expected_slide_costs_the_new_screenshot_alone(
    make: MakeKamera, model: Any, processor: PocketProcessor, fidelity: str
) -> None:
    """1. Answer. 2. Say what goes, and heal. 3. Slide, add a screenshot and ask. As many tokens are computed as without
    a slide, and the logits are those of a plain prefill."""
    computed = []
    for slides in (False, True):
        kamera = make(model, heal="ahead", stale="keep", fidelity=fidelity)
        window, ids = window_of(kamera, 3)
        if slides:
            expected = [TextContent("gone"), *ids[1:]]
            window.expect(expected)
            assert kamera.settle()
            window.sync(expected)
        window.add_image(screenshot(3))
        computed.append(window.plan().num_tokens("computed"))
        logits = window.logits("and?")
        assert all(span.exact for span in window.spans)
        window.check_integrity()
    assert computed[0] == computed[1]
    talk = Conversation(model, processor)
    talk.say("user", "gone", "screen 0", screenshot(1), "screen 1", screenshot(2), "screen 2", screenshot(3), "and?")
    assert max_error(talk.logits(), logits) <= 1e-4


def test_keep_last_three_is_exact_at_every_turn(make: MakeKamera) -> None:
    """As an agent does it. One screenshot a turn is computed, and what is healed takes no more room than the window."""
    kamera = make(heal="ahead", stale="keep")
    window = kamera.window()
    contents: list[Any] = []
    for number in range(8):
        contents += [f"step {number}", ImageContent(screenshot(number)), "what?"]
        contents = [TextContent(part) if isinstance(part, str) else part for part in contents]
        window.sync(contents)
        reply = window.generate(max_tokens=2)
        images = [row for row in reply.plan.rows if row.kind == "image"]
        assert [row.origin for row in images] == ["kept"] * (len(images) - 1) + ["computed"]
        assert all(span.exact for span in window.spans)
        contents.append(TextContent(reply.text, "assistant"))
        if number >= 2:
            contents[4 * (number - 2) + 1] = TextContent(f"[Screen {number - 2} is not shown.]")
        window.expect(contents)
        assert kamera.settle()
        window.check_integrity()
        assert window.pool_bytes <= 2.3 * needed_bytes(window)
    assert kamera.stats().healed_tokens > 0
    window.sync(contents)
    assert max_error(window.reference_logits("so?"), window.logits("so?")) <= 1e-4


@pytest.mark.parametrize("ahead", [False, True], ids=["present", "ahead"])
def test_a_slice_that_gives_way_leaves_everything_as_it_was(make: MakeKamera, ahead: bool) -> None:
    """At every layer of every slice, of a moved window and of an expected one."""
    kamera = make(heal="ahead", stale="keep")
    window, ids = window_of(kamera)
    if ahead:
        window.expect(ids[2:])
    else:
        window.slide(3)
        window.logits("what?")
    num_slices, tokens = 0, 1
    while tokens:
        logits, exact = window.logits("and?"), [span.exact for span in window.spans]
        for num_ticks in itertools.count():
            ticks = iter([False] * num_ticks)
            tokens = window.idle.heal(lambda ticks=ticks: next(ticks, True))
            window.check_integrity()
            if tokens is not None:
                break
            assert [span.exact for span in window.spans] == exact
            assert max_error(logits, window.logits("and?")) <= 1e-4
        num_slices += 1
    assert num_slices > 3
    if ahead:
        window.sync(ids[2:])
    assert max_error(window.reference_logits("and?"), window.logits("and?")) <= 1e-4


def test_another_window_comes_than_was_expected(make: MakeKamera) -> None:
    """What both have in common at their beginning is exact and costs nothing."""
    kamera = make(heal="ahead", stale="keep")
    window, ids = window_of(kamera)
    window.expect(ids[2:])
    assert kamera.settle()
    window.sync([*ids[2:6], ImageContent(screenshot(9))])
    logits = window.logits("and?")
    spans = {span.id: span for span in window.spans}
    assert [spans[span_id].origin for span_id in ids[2:6]] == ["kept"] * 4
    assert is_exact(window)
    assert max_error(window.reference_logits("and?"), logits) <= 1e-4


def test_no_more_is_healed_ahead_than_the_window_holds(make: MakeKamera) -> None:
    kamera = make(heal="ahead")
    window, ids = window_of(kamera, 2)
    window.expect([*ids[2:], *(ImageContent(screenshot(10 + number)) for number in range(9))])
    assert kamera.settle()
    assert window.pool_bytes <= 2.3 * needed_bytes(window)
    window.expect(None)
    assert kamera.settle()
    assert window.pool_bytes <= 1.15 * needed_bytes(window)


def test_never_means_never(make: MakeKamera) -> None:
    kamera = make(heal="never", stale="keep")
    window, ids = window_of(kamera)
    window.slide(2)
    window.logits("what?")
    window.expect(ids[6:])
    assert kamera.settle()
    assert kamera.stats().healed_tokens == 0


def test_expect_checks_its_contents(make: MakeKamera) -> None:
    window, ids = window_of(make(), 2)
    with pytest.raises(UnknownSpanError):
        window.expect([*ids, "image99"])
    assert [span.id for span in window.spans if span.id in ids] == ids


def wait_for(is_true: Callable[[], bool]) -> None:
    end = monotonic() + 30
    while not is_true():
        assert monotonic() < end
        sleep(0.002)


def is_exact(window: Window) -> bool:
    return all(span.exact for span in window.spans)


@pytest.mark.usefixtures("awake")
def test_a_thread_heals_after_the_answer(make: MakeKamera) -> None:
    kamera = make(heal="idle", stale="keep")
    window, _ = window_of(kamera)
    window.slide(2)
    window.logits("what?")
    wait_for(lambda: is_exact(window))
    kamera.flush()
    stats = kamera.stats()
    assert (stats.healed_tokens > 50, stats.healing_s > 0, stats.unhealed) == (True, True, 0)
    assert max_error(window.reference_logits("and?"), window.logits("and?")) <= 1e-4


@pytest.mark.usefixtures("awake")
def test_an_answer_waits_for_the_slice_that_runs(make: MakeKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an answer nor an edit finds the window busy, and neither begins before the slice has ended."""
    kamera = make(heal="idle", stale="keep")
    window, _ = window_of(kamera)
    begun, goes_on, order = threading.Event(), threading.Event(), []
    heal = window._assembly.heal

    def slow(*args: Any, **options: Any) -> int:
        begun.set()
        assert goes_on.wait(30)
        order.append("healed")
        return heal(*args, **options)

    monkeypatch.setattr(window._assembly, "heal", slow)
    window.slide(2)
    window.logits("what?")
    assert begun.wait(30)

    def answer() -> None:
        window.add_text("so")
        order.append("added")
        window.logits("what?")
        order.append("answered")

    thread = threading.Thread(target=answer)
    thread.start()
    thread.join(0.05)
    assert order == []
    goes_on.set()
    thread.join(30)
    assert order[:2] == ["healed", "added"]
    wait_for(lambda: "answered" in order)


@pytest.mark.usefixtures("awake")
def test_an_open_stream_is_left_alone(make: MakeKamera) -> None:
    kamera = make(heal="idle", stale="keep")
    window, _ = window_of(kamera)
    window.slide(2)
    stream = window.stream("go on", max_tokens=30, temperature=1.0, seed=1)
    next(stream)
    healed = kamera.stats().healed_tokens
    assert not kamera.settle()
    assert kamera.stats().healed_tokens == healed
    stream.finish()
    wait_for(lambda: is_exact(window))


@pytest.mark.usefixtures("awake")
def test_failures_are_logged_once_and_reach_nobody(
    make: MakeKamera, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kamera = make(heal="idle", stale="keep")
    window, _ = window_of(kamera)

    def fail(*_: Any, **__: Any) -> int:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(window._assembly, "heal", fail)
        for number in range(3):
            window.logits("what?")
            wait_for(lambda number=number: kamera.stats().unhealed > number)
    assert len([record for record in caplog.records if record.name == "kamera_agent.healer"]) == 1
    window.slide(2)
    window.logits("what?")
    wait_for(lambda: is_exact(window))


@pytest.mark.usefixtures("awake")
def test_windows_that_nobody_holds_are_let_go(make: MakeKamera) -> None:
    kamera = make(heal="ahead", stale="keep")
    window, ids = window_of(kamera)
    window.expect(ids[2:])
    gone = ref(window)
    del window
    wait_for(lambda: gone() is None)
    assert kamera.stats().pool_bytes == 0


@pytest.mark.usefixtures("awake")
def test_close_ends_healing(make: MakeKamera) -> None:
    kamera = make(heal="ahead", stale="keep")
    window, ids = window_of(kamera)
    window.expect(ids[2:])
    kamera.close()
    assert "kamera-heal" not in {thread.name for thread in threading.enumerate()}
    assert kamera._healer.settle([window]) is False
    with pytest.raises(StoreClosedError):
        kamera.settle()
