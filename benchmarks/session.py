"""A window that answers one question over changing pictures, and the time to its first token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.baselines import Baselines, Figures, Pixels, Prompt, timed_ms
from kamera_agent import Kamera, Reply

QUESTION = "What changed?"
BLOCK = 16
# The parts of a turn up to its first token; parts_of() describes them.
PARTS = ("edit", "plan", "rebuild", "prefill", "wait")


def picture(height: int, width: int, seed: int) -> Pixels:
    """[height, width, 3] uint8 noise in blocks of BLOCK pixels; each seed gives another picture."""
    shape = -(-height // BLOCK), -(-width // BLOCK), 3
    blocks = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[:height, :width])


def parts_of(ms: float, reply: Reply) -> Figures:
    """The parts of a turn of so many milliseconds up to its first token, and what it read and refreshed.

    edit: changing the list of spans, with preprocessing and fingerprint. plan: with reading the store. rebuild,
    prefill: as Timings says; for a GPU, until the work is queued. wait: the device's rest of that work, and the draw.
    """
    times, usage = reply.timings, reply.usage
    parts = {"edit": ms - times.first_token_ms, "plan": times.plan_ms}
    parts |= {"rebuild": times.rebuild_ms, "prefill": times.prefill_ms}
    parts["wait"] = ms - sum(parts.values())
    return parts | {"bytes_read": usage.bytes_read, "tokens_refreshed": usage.tokens_refreshed}


def _nothing() -> None:
    """The edit of a turn whose edits are done."""


class Session:
    """A window that keeps the last num_kept pictures."""

    def __init__(self, kamera: Kamera, num_kept: int) -> None:
        self.kamera, self.window = kamera, kamera.window()
        self.pictures: dict[str, Pixels] = {}
        self._num_kept = num_kept

    @property
    def ids(self) -> list[str]:
        """Ids of the pictures in the window, in order."""
        return [span.id for span in self.window.spans if span.kind == "image"]

    def see(self, pixels: Pixels) -> None:
        """Add a picture at the end. The first one leaves if the window is full."""
        self.pictures[self.window.add_image(pixels)] = pixels
        self.window.slide(self._num_kept)

    def baselines(self, new: Pixels) -> Baselines:
        """The baselines over the window that see(new) will give."""
        pictures = [self.pictures[span_id] for span_id in self.ids[1:]]
        family = self.kamera.family
        return Baselines(Prompt(family.model, family.processors, [*pictures, new], QUESTION))

    def answer(self, edit: Callable[[], object] = _nothing) -> tuple[float, Reply]:
        """Milliseconds from the edit to the first token, and the reply.

        The question and the reply are dropped afterwards, so the content of two turns differs in the pictures only.
        """
        edit_ms, _ = timed_ms(edit)
        reply = self.window.generate(QUESTION, max_tokens=1)
        for span in self.window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                self.window.drop(span.id)
        return edit_ms + reply.timings.first_token_ms, reply

    def measure(self, edit: Callable[[], object], baselines: Baselines, num_new: int) -> Figures:
        """Our time to the first token with its parts, and the bare pass of as many tokens just before and after it."""
        before_ms = baselines.bare_ms(num_new)
        ours_ms, reply = self.answer(edit)
        remember_ms, _ = timed_ms(self.kamera.flush)
        bare_ms = (before_ms + baselines.bare_ms(num_new)) / 2
        computed = reply.usage.tokens_computed
        assert computed == baselines.num_bare(num_new), (computed, reply.plan)
        figures = {"ours": ours_ms, "bare": bare_ms, "remember": remember_ms, "tokens_computed": computed}
        return figures | parts_of(ours_ms, reply)
