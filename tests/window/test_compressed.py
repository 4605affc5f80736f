"""Bases in int8."""

import pytest
import torch
from models import TINY, MakeKamera, max_error, screenshot

from kamera_agent import SettingError

FULL_RANK, NUM_IMAGES = 26, 3


def see(make: MakeKamera, store: object = None, **options: object) -> tuple[object, torch.Tensor, set[str]]:
    """A Kamera that answers over three screenshots and remembers them: it, its logits, where the KV came from."""
    kamera = make(store=store, base="canonical", rank=FULL_RANK, **options)
    window = kamera.window()
    for seed in range(NUM_IMAGES):
        window.add_image(screenshot(seed))
    logits = window.logits("what?")
    origins = {span.origin for span in window.spans if span.kind == "image"}
    kamera.flush()
    return kamera, logits, origins


def test_the_patch_makes_up_for_the_rounding(make: MakeKamera) -> None:
    """At full rank a recall is a full prefill, to float32, though what it starts from was rounded to 8 bits."""
    first, computed, _ = see(make, base_dtype="int8")
    _, recalled, origins = see(make, first.store, base_dtype="int8")
    assert origins == {"recalled"}
    assert max_error(computed, recalled) <= 1e-3


def test_it_takes_a_quarter_of_the_bytes_of_float32(make: MakeKamera) -> None:
    kamera, *_ = see(make, base_dtype="int8")
    sizes = [header.num_bytes for header in kamera.store.headers() if header.kind == "base"]
    heads, dim = TINY.num_kv_heads, TINY.hidden // TINY.num_heads
    narrow, steps = 2 * heads * FULL_RANK * dim, 4 * heads * (dim + FULL_RANK)
    assert sizes == [TINY.num_layers * (narrow + steps)] * NUM_IMAGES


def test_what_is_kept_otherwise_does_not_serve(make: MakeKamera) -> None:
    """A patch belongs to the base that it was fitted over: in one store, each finds its own."""
    first, computed, _ = see(make, base_dtype="int8")
    second, _, origins = see(make, first.store)
    assert origins == {"computed"}
    for dtype in ("full", "int8"):
        _, logits, origins = see(make, first.store, base_dtype=dtype)
        assert origins == {"recalled"}
        assert max_error(computed, logits) <= 1e-3
    bases = [header for header in second.store.headers() if header.kind == "base"]
    assert len(bases) == 2 * NUM_IMAGES


def test_unknown_names_are_refused(make: MakeKamera) -> None:
    with pytest.raises(SettingError, match="'int4'"):
        make(base_dtype="int4")
