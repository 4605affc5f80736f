"""What a long-lived window holds: pool bytes, and every counter that could creep."""

import gc
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY, MakeKamera, screenshot

from kamera_agent import Window
from kamera_agent.config import OnStale
from kamera_agent.runtime.kv_pool import KVPool

TOKEN_BYTES = 3 * TINY.num_layers * TINY.num_kv_heads * 16 * 4


def needed_bytes(window: Window) -> int:
    """Masters, rotated keys and values of every token in the window."""
    return TOKEN_BYTES * sum(span.num_tokens for span in window.spans)


@pytest.mark.parametrize("size", [(112, 168), (560, 728)], ids=["small", "large"])
def test_pool_bytes_are_what_the_spans_need(make: MakeKamera, size: tuple[int, int]) -> None:
    kamera = make()
    window = kamera.window()
    for i in range(8):
        window.add_image(screenshot(i, *size))
        window.slide(3 if i < 6 else 1)
        window.generate("what?", max_new_tokens=4)
        assert needed_bytes(window) <= window.pool_bytes <= 1.15 * needed_bytes(window)
        assert window.pool_bytes == kamera.stats().pool_bytes
        window.check_integrity()


@pytest.mark.parametrize("stale", ["refresh", "keep"])
def test_five_hundred_slides_do_not_grow(make: MakeKamera, stale: OnStale) -> None:
    """Keep-last-3 over ever new images: after a warm-up nothing that is counted grows."""
    size = (56, 56)
    chunk_bytes = screenshot(0, *size).nbytes
    kamera = make(
        stale=stale,
        memory_bytes=40_000,
        encoder_cache_bytes=8 * 4 * TINY.hidden * 4,
        dropped_bytes=10 * (chunk_bytes + 4096),
    )
    window = kamera.window()
    counted = []
    for i in range(500):
        window.add_image(screenshot(i, *size))
        window.slide(3)
        window.logits("what?")
        kamera.flush()
        stats = kamera.stats()
        # What a refresh computes whole is stored: which records fit under the cap then depends on the pixels.
        stored = () if stale == "refresh" else (stats.store.num_bytes, stats.store.num_records)
        counted.append(
            (window.pool_bytes, window.dropped_bytes, len(window.spans), stats.encoder_bytes, stats.num_windows, stored)
        )
        assert stats.store.num_bytes <= 40_000
    assert counted[20:] == [counted[20]] * 480
    assert window.dropped_bytes <= 10 * (chunk_bytes + 4096)


def test_closed_windows_are_forgotten(make: MakeKamera) -> None:
    kamera = make()
    for _ in range(3):
        kamera.window().logits("hi")
    assert kamera.stats().num_windows == 0
    assert kamera.stats().pool_bytes == 0


def test_span_dropped_beyond_the_bound_cannot_be_recalled(make: MakeKamera) -> None:
    from kamera_agent import UnknownSpanError

    window = make(dropped_bytes=100_000).window()
    ids = [window.add_image(screenshot(i)) for i in range(3)]
    window.slide(0)
    with pytest.raises(UnknownSpanError, match="Add the content again"):
        window.recall(ids[0])
    window.recall(ids[2])
    assert torch.isfinite(window.logits()).all()


@pytest.mark.parametrize("kind", ["text", "document", "narrow frames"])
def test_what_is_kept_for_recall_is_counted_in_full(make: MakeKamera, kind: str) -> None:
    """Against what Python has allocated for it since. Characters beyond ASCII take up to four bytes each."""
    window = make(dropped_bytes=4_000_000).window()

    def add(number: int) -> str:
        text = "words and a smile \U0001f642 " * 400
        if kind == "narrow frames":
            # Long times: they are a part of the key.
            return window.add_frames(np.full((40, 56, 56, 3), number, np.uint8), [0.1 + step / 3 for step in range(40)])
        return window.add_text(text) if kind == "text" else window.add_document(text)

    window.drop(add(0))
    each = window.dropped_bytes
    tracemalloc.start()
    try:
        for number in range(1, 8):
            window.drop(add(number))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.dropped_bytes == 8 * each
    assert held <= 7 * each
    for number in range(8, 4_000_000 // each + 2):
        window.drop(add(number))
    assert window.dropped_bytes == each * (4_000_000 // each)


@pytest.mark.parametrize("form", [np.asarray, list], ids=["array", "list"])
def test_adding_a_clip_takes_no_more_than_a_copy_and_a_half(make: MakeKamera, form: Callable[..., Any]) -> None:
    """The window keeps one copy of the frames, of 1 byte per value; patches have 4, and are only made to be encoded.

    Half a copy is left for the key, the positions, and the patches of the one frame that the grid is learned from.
    """
    window = make().window()
    pixels = np.zeros((64, 528, 720, 3), np.uint8)
    frames = form(pixels)
    tracemalloc.start()
    try:
        window.add_frames(frames)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.spans[-1].num_tokens > 0
    assert peak <= 1.5 * pixels.nbytes


def test_a_usual_turn_does_not_copy_the_pool(make: MakeKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep-last-3 over a conversation that grows: the pool grows after a turn, by a share of it, never within one."""
    copied: list[int] = []
    resize = KVPool._resize
    monkeypatch.setattr(KVPool, "_resize", lambda pool, *args: (copied.append(args[0]), resize(pool, *args))[1])
    window = make(stale="keep", heal="never").window()
    window.add_text("a long talk " * 100)
    sizes, within, after = [], list[int](), list[int]()
    for number in range(30):
        window.add_image(screenshot(number, 280, 420))
        window.slide(3)
        copied.clear()
        with window.stream("What is there?", max_tokens=4) as stream:
            next(stream, None)
            within.append(len(copied))
            stream.finish()
        after.append(len(copied) - within[-1])
        sizes.append(sum(span.num_tokens for span in window.spans))
        assert window.pool_bytes <= 1.15 * needed_bytes(window)
    assert within[3:] == [0] * 27
    # A window that is n times as large has been copied log(n) / log(1.07) times.
    assert sum(after[3:]) <= 1 + math.log(sizes[-1] / sizes[2]) / math.log(1.07)
