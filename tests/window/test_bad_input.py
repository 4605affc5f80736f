"""Bad input gets an error of our tree before any work, and window and store stay as they were."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TINY, MakeKamera, screenshot
from PIL import Image

from kamera_agent import (
    ConventionError,
    DocumentContent,
    ImageError,
    InputError,
    Kamera,
    KameraError,
    ModelError,
    SettingError,
    StoreError,
    TextContent,
    UnknownSpanError,
    UnsupportedModelError,
    VideoError,
    Window,
    WindowError,
    WindowTooLongError,
)
from kamera_agent.pocket.model import PocketProcessor, build_model
from kamera_agent.vision.frames import stack_frames
from kamera_agent.vision.sampling import sample_fps


def cut_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(screenshot(0)).save(buffer, "PNG")
    return buffer.getvalue()[:200]


BAD_CALLS: dict[str, tuple[type[KameraError], Callable[[Window, str], object]]] = {
    "cut image bytes": (ImageError, lambda w, a: w.add_image(cut_png())),
    "zero-size image": (ImageError, lambda w, a: w.add_image(np.zeros((0, 5, 3), np.uint8))),
    "float array": (ImageError, lambda w, a: w.add_image(np.zeros((28, 28, 3), np.float32))),
    "five channels": (ImageError, lambda w, a: w.add_image(np.zeros((28, 28, 5), np.uint8))),
    "missing image file": (ImageError, lambda w, a: w.add_image("no/such/file.png")),
    "a sliver": (ImageError, lambda w, a: w.add_image(np.zeros((1, 500, 3), np.uint8))),
    "no frames": (VideoError, lambda w, a: w.add_frames([])),
    "missing clip": (VideoError, lambda w, a: w.add_frames(sample_fps("no/such/clip.mp4"))),
    "missing clip by its path": (VideoError, lambda w, a: w.add_frames(Path("no/such/clip.mp4"), fps=1)),
    "a clip of a million characters": (VideoError, lambda w, a: w.add_frames("AAAA" * 250_000)),
    "timestamps for a clip": (SettingError, lambda w, a: w.add_frames("clip.mp4", timestamps=[0, 1])),
    "timestamps and fps": (SettingError, lambda w, a: w.add_frames([screenshot(0)] * 2, timestamps=[0, 1], fps=1)),
    "Frames and fps": (SettingError, lambda w, a: w.add_frames(stack_frames([screenshot(0)] * 2), fps=1)),
    "fps of zero": (SettingError, lambda w, a: w.add_frames([screenshot(0)] * 2, fps=0)),
    "timestamps backwards": (VideoError, lambda w, a: w.add_frames([screenshot(0)] * 2, timestamps=[1, 0])),
    "empty text": (InputError, lambda w, a: w.add_text("")),
    "text of another type": (InputError, lambda w, a: w.add_text(7)),  # type: ignore[arg-type]
    "content of another type": (InputError, lambda w, a: w.sync([7])),  # type: ignore[list-item]
    "drop of an unknown span": (UnknownSpanError, lambda w, a: w.drop("image99")),
    "drop of the anchor": (UnknownSpanError, lambda w, a: w.drop("anchor")),
    "recall of a span that is there": (UnknownSpanError, lambda w, a: w.recall(a)),
    "recall of an unknown span": (UnknownSpanError, lambda w, a: w.recall("image99")),
    "reorder with a missing span": (UnknownSpanError, lambda w, a: w.reorder([a])),
    "reorder with an unknown span": (UnknownSpanError, lambda w, a: w.reorder([a, "image99"])),
    "reorder with a span twice": (UnknownSpanError, lambda w, a: w.reorder([a, a])),
    "sync with an unknown span": (UnknownSpanError, lambda w, a: w.sync([a, "image99"])),
    "sync with a span twice": (UnknownSpanError, lambda w, a: w.sync([a, a])),
    "negative slide": (WindowError, lambda w, a: w.slide(-1)),
    "no new tokens": (SettingError, lambda w, a: w.generate("q", max_new_tokens=0)),
    "negative temperature": (SettingError, lambda w, a: w.generate("q", temperature=-1.0)),
    "top_p of zero": (SettingError, lambda w, a: w.generate("q", top_p=0.0)),
    "negative top_k": (SettingError, lambda w, a: w.generate("q", top_k=-1)),
    "empty question": (InputError, lambda w, a: w.generate("")),
    "question too long": (WindowTooLongError, lambda w, a: w.generate("long " * 600)),
    "sync too long": (WindowTooLongError, lambda w, a: w.sync([TextContent("long " * 600)])),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(make: MakeKamera, name: str) -> None:
    error, call = BAD_CALLS[name]
    kamera = make()
    window = kamera.window()
    first = window.add_image(screenshot(0))
    window.add_image(screenshot(1))
    window.logits("what?")
    before = window.logits("what?")
    kamera.flush()
    spans, headers, encoder_calls = window.spans, kamera.store.headers(), kamera.stats().encoder_calls
    with pytest.raises(error, match=r"^(?s:.{20,500})$"):
        call(window, first)
    assert window.spans == spans
    assert kamera.store.headers() == headers
    assert kamera.stats().encoder_calls == encoder_calls
    window.check_integrity()
    assert torch.equal(window.logits("what?"), before)


def test_rank_above_the_chunks_size(make: MakeKamera) -> None:
    """A demanded rank is checked at add; left out, it bends to the chunk."""
    window = make(rank=27).window()
    with pytest.raises(SettingError, match="27 is above the chunk's size of 26 tokens"):
        window.add_image(screenshot(0))
    assert [span.kind for span in window.spans] == ["anchor", "text"]
    relaxed = make()
    relaxed.window().add_image(screenshot(0))


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": -3},
        {"rank": "many"},
        {"rank": True},
        {"fidelity": "perfect"},
        {"namespace": ""},
        {"eviction": "fifo"},
        {"quota_bytes": -1},
        {"ttl_s": 0},
        {"error_budget": 0.0},
        {"byte_budget": 1.5},
        {"memory_bytes": -1},
        {"ranks": 3},
    ],
    ids=str,
)
def test_bad_option(models: dict[str, Any], processor: PocketProcessor, options: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Kamera(models["qwen2_5_vl"], processor, **options)


def test_store_folder_that_is_a_file(models: dict[str, Any], processor: PocketProcessor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="file"):
        Kamera(models["qwen2_5_vl"], processor, store=tmp_path / "file")


def test_wrong_model_type(processor: PocketProcessor) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTModel

    with pytest.raises(
        UnsupportedModelError, match=r"'vit'; supported are causal text models and .*qwen2_5_vl, qwen2_vl"
    ):
        Kamera(ViTModel(ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1)), processor)
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel has no `model`"):
        Kamera(GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)), processor)
    with pytest.raises(UnsupportedModelError, match="str"):
        Kamera("a model id", processor)


def test_processor_without_its_parts(models: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no tokenizer and no image_processor"):
        Kamera(models["qwen2_5_vl"], object())


def test_model_cast_after_loading(processor: PocketProcessor) -> None:
    """model.to(bfloat16) rounds the rotary frequencies along with the weights."""
    with pytest.raises(ConventionError, match="dtype="):
        Kamera(build_model(TINY).to(torch.bfloat16), processor)


def test_another_rope_convention(processor: PocketProcessor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model that turns neighbouring components as a pair is refused, with the layer named; no store is opened."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

    def interleaved(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        return tuple((x * cos[:, None]) + (rotate_pairs(x) * sin[:, None]) for x in (q, k))

    def rotate_pairs(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)

    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", interleaved)
    with pytest.raises(ConventionError, match="Layer 0"):
        Kamera(build_model(TINY), processor, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_window_of_a_closed_kamera(make: MakeKamera) -> None:
    kamera = make()
    window = kamera.window()
    window.add_image(screenshot(0))
    kamera.close()
    kamera.close()
    with pytest.raises(StoreError, match="closed"):
        window.generate("what?")
    with pytest.raises(StoreError, match="closed"):
        kamera.flush()


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing-here"):
        Kamera.from_pretrained(tmp_path / "nothing-here", store=None)


def test_half_an_emoji_is_replaced(make: MakeKamera) -> None:
    """Cut from a page or a log: no tokenizer takes it. The text is the same one in the next list."""
    window = make().window(system="You see \ud83d.")
    contents = [TextContent("Sale \ud83d now"), TextContent("\ud83d\ude00", "assistant"), DocumentContent("so \ude00")]
    ids = window.sync(contents, "You read \ud83d.")
    assert [item.text for item in window._items.live[:3]] == ["You read \ufffd.", "Sale \ufffd now", "\U0001f600"]
    assert window.sync(contents, "You read \ud83d.") == ids
    window.logits("\udc00?")
    system = window.spans[1].id
    window.sync(contents, "You read \ud83d.")
    assert window.spans[1].id == system
