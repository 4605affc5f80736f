"""Ctrl-C at any moment: the next answer is right, no window of the Kamera is spoilt, and nothing stays locked."""

import copy
import itertools
import linecache
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot

import kamera_agent
from kamera_agent import Kamera, KameraError, TextContent, Window
from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.runtime.families.decoder import FULL, SLIDING

PACKAGE = kamera_agent.__path__[0]
# Files whose frames are interrupted at every opcode: ours, and the one that runs our context managers.
TRACED = re.compile(rf"{re.escape(PACKAGE)}/(window|runtime|kamera)|contextlib")
ANY = re.compile("")
# Functions that change a pool, its residents or the items of a window.
CHANGES = re.compile(
    r"resize|reserve|compact|free|reclaim|take|hide|_rebuild|finish|settle|heal|compute|_recover|_empty|enter|forward_at|extend"
)
# Between the last line of such a block and the release of its lock, Python looks for no signal.
ON_A_LOCK = re.compile(r"\s*with self\.(_lock|busy|slice|_door\.slice|_windows_lock)\b")
TOLERANCE = 2e-3


class Subject:
    """Two windows of one Kamera. One is answered, edited and interrupted; the other must not notice."""

    def __init__(self, kamera: Kamera, rng: random.Random) -> None:
        self._kamera, self._rng = kamera, rng
        self._other = self._new_window(9)
        self.window = self._new_window(0)
        self._other.logits("what?")

    def _new_window(self, seed: int) -> Window:
        window = self._kamera.window()
        window.add_text("it is so")
        for number in range(3):
            window.add_image(screenshot(seed + number))
        return window

    def turn(self) -> None:
        """Edit the window, then answer, in one of the ways that a program does."""
        window, rng = self.window, self._rng
        texts = [span.id for span in window.spans if span.kind in ("text", "reply") and span.role != "system"]
        for span_id in texts[1:-2]:
            window.drop(span_id)
        window.add_image(screenshot(rng.randrange(5)))
        window.slide(rng.randrange(3, 6))
        images = [span.id for span in window.spans if span.kind == "image"]
        rng.choice(
            [
                lambda: None,
                lambda: window.drop(images[0]),
                lambda: window.reorder(rng.sample(images, len(images))),
                lambda: window.sync([*images[1:], images[0], TextContent("so?")]),
                lambda: window.sync([TextContent(f"it is {rng.choice(['so', 'not so', 'so now'])}"), *images]),
            ]
        )()
        rng.choice([lambda: window.generate("what?", max_tokens=4), lambda: window.logits("and?"), self._leave])()
        rng.choice([lambda: None, lambda: window.expect(images[1:]), lambda: window.expect(images[::-1])])()
        rng.choice([lambda: None, self._kamera.settle])()

    def _leave(self) -> None:
        with self.window.stream("go on", max_tokens=9, temperature=1.0, seed=1) as stream:
            next(stream, None)

    def check(self) -> None:
        """The next answer of either window is right where it says so, and every slot has one owner."""
        for window in (self.window, self._other):
            window.check_integrity()
            logits, exact = window.logits("what?"), all(span.exact for span in window.spans)
            assert logits.isfinite().all()
            assert not exact or max_error(window.reference_logits("what?"), logits) < TOLERANCE
            window.check_integrity()


class InterruptAt:
    """Raises KeyboardInterrupt at an opcode, counted from 1 over the functions whose names match, in the traced files.

    num_opcodes: seen so far.
    """

    def __init__(self, names: re.Pattern[str], number: int | None = None) -> None:
        self.num_opcodes = 0
        self._names, self._number = names, number

    def __enter__(self) -> "InterruptAt":
        sys.settrace(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if not TRACED.search(frame.f_code.co_filename) or not self._names.search(frame.f_code.co_name):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.num_opcodes += 1
            if self.num_opcodes == self._number and not self._is_safe(frame):
                raise KeyboardInterrupt
        return self._trace

    def _is_safe(self, frame: FrameType) -> bool:
        return bool(ON_A_LOCK.match(linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)))


def interrupt_by_opcodes(make: MakeKamera, names: re.Pattern[str], seed: int, num_turns: int) -> None:
    rng = random.Random(seed)
    kamera = make(fidelity="exact")
    subject = Subject(kamera, rng)
    with InterruptAt(names) as counting:
        subject.turn()
    for number in range(num_turns):
        with InterruptAt(names, rng.randrange(1, counting.num_opcodes)):
            subject.turn()
        try:
            subject.check()
        except (AssertionError, KameraError, RuntimeError) as error:
            # Not as a cause: pytest cannot print a traceback that was raised at an opcode without a line.
            raise AssertionError(f"After turn {number} of seed {seed}: {error!r}") from None


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Sets the seconds until a KeyboardInterrupt arrives as a signal; 0 cancels it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def report(unraisable: Any) -> None:
        # Where the signal arrives in the callback of a weak reference, Python only reports it and goes on.
        if unraisable.exc_type is not KeyboardInterrupt:
            reported(unraisable)

    reported = sys.unraisablehook
    monkeypatch.setattr(sys, "unraisablehook", report)
    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)  # type: ignore[func-returns-value]
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupt_by_signals(
    make: MakeKamera, alarm: Callable[[float], None], seed: int, num_turns: int, **options: Any
) -> None:
    rng = random.Random(seed)
    kamera = make(**options)
    subject = Subject(kamera, rng)
    for number in range(num_turns):
        try:
            alarm(10 ** rng.uniform(-4, -1.3))
            subject.turn()
            alarm(0)
        except KeyboardInterrupt:
            pass
        try:
            subject.check()
        except (AssertionError, KameraError, RuntimeError) as error:
            # Not as a cause: pytest cannot print a traceback that was raised at an opcode without a line.
            raise AssertionError(f"After turn {number} of seed {seed}: {error!r}") from None
    kamera.flush()


@pytest.mark.parametrize("names", [ANY, CHANGES], ids=["any", "changes"])
def test_interrupt_at_opcodes(make: MakeKamera, names: re.Pattern[str]) -> None:
    interrupt_by_opcodes(make, names, 1, 16)


def test_interrupt_at_opcodes_with_sliding_layers(make: MakeKamera, models: dict[str, Any]) -> None:
    """Every second layer sees 40 tokens, so what is further back waits for its work."""
    whole = models["qwen2_5_vl"]
    config = copy.deepcopy(whole.config)
    kinds = [SLIDING if number % 2 else FULL for number in range(config.text_config.num_hidden_layers)]
    config.text_config.layer_types, config.text_config.sliding_window = kinds, 40
    sliding = type(whole)(config).eval()
    sliding.load_state_dict(whole.state_dict())
    made: list[Kamera] = []

    def make_sliding(**options: Any) -> Kamera:
        made.append(make(sliding, **options))
        return made[-1]

    interrupt_by_opcodes(make_sliding, CHANGES, 1, 16)
    assert {shape.reach for shape in made[0].family.decoder.shapes} == {None, 40}


@pytest.mark.usefixtures("awake")
def test_interrupt_by_signals(make: MakeKamera, alarm: Callable[[float], None]) -> None:
    interrupt_by_signals(make, alarm, 0, 40, fidelity="exact")


@pytest.mark.usefixtures("awake")
def test_interrupt_beside_the_worker_and_the_store(
    make: MakeKamera, alarm: Callable[[float], None], tmp_path: Path
) -> None:
    """With a store on disk, locks are taken all the time; none stays taken, or flush() would hang."""
    interrupt_by_signals(make, alarm, 0, 20, store=tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_interrupt_between_the_copies_of_a_pool(make: MakeKamera, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """After an answer, a pool is copied buffer by buffer into a smaller one; Ctrl-C comes after some of them."""
    window = make(fidelity="exact").window()
    for seed in range(4):
        window.add_image(screenshot(seed))
    window.logits("what?")
    window.slide(2)
    stream, cat, copies = window.stream("what?", max_tokens=1), torch.cat, itertools.count(1)
    next(stream, None)

    def interrupted(*args: Any, **kwargs: Any) -> torch.Tensor:
        joined: torch.Tensor = cat(*args, **kwargs)
        if "out" in kwargs and next(copies) == number:
            raise KeyboardInterrupt
        return joined

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.finish()
    assert max_error(window.reference_logits("so?"), window.logits("so?")) < TOLERANCE


def test_an_interrupted_reply_costs_no_more_than_itself(make: MakeKamera, alarm: Callable[[float], None]) -> None:
    """Ctrl-C while tokens come: neither question nor reply stay, and nothing else is computed again."""
    window = make().window()
    window.add_image(screenshot(0))
    window.generate("what?", max_tokens=2)
    spans = [span.id for span in window.spans]
    stream = window.stream("go on", max_tokens=99, temperature=1.0, seed=1)
    next(stream)
    alarm(5e-3)
    with pytest.raises(KeyboardInterrupt):
        stream.finish()
    assert [span.id for span in window.spans] == spans
    assert {row.origin for row in window.plan().rows} == {"kept"}


def test_hooks_go_with_the_kamera(models: dict[str, Any], processor: PocketProcessor) -> None:
    modules = [layer.self_attn.k_proj for layer in models["qwen2_5_vl"].model.language_model.layers]
    before = [len(module._forward_hooks) for module in modules]
    kamera = Kamera(models["qwen2_5_vl"], processor)
    kamera.window().generate("what?", max_tokens=2)
    kamera.close()
    del kamera
    assert [len(module._forward_hooks) for module in modules] == before


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("names", [ANY, CHANGES], ids=["any", "changes"])
@pytest.mark.parametrize("seed", range(10, 13))
def test_interrupt_at_many_opcodes(make: MakeKamera, names: re.Pattern[str], seed: int) -> None:
    interrupt_by_opcodes(make, names, seed, 400)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20, 23))
@pytest.mark.usefixtures("awake")
def test_interrupt_by_many_signals(make: MakeKamera, alarm: Callable[[float], None], seed: int, tmp_path: Path) -> None:
    interrupt_by_signals(make, alarm, seed, 400, fidelity="exact")
    interrupt_by_signals(make, alarm, seed, 400, store=tmp_path)
