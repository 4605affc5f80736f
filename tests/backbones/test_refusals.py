"""What cannot be served exactly is refused, with the reason and what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import max_error, screenshot
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

from benchmarks.backbones.zoo.ernie4_5_vl import ernie4_5_vl_moe
from benchmarks.backbones.zoo.gemma3 import gemma3
from benchmarks.backbones.zoo.internvl import internvl
from benchmarks.backbones.zoo.ovis2 import ovis2
from benchmarks.backbones.zoo.parts import MAX_POSITIONS
from benchmarks.backbones.zoo.pixtral import mistral3_ministral3
from benchmarks.backbones.zoo.qwen_vl import qwen2_5_omni
from kamera_agent import InputError, Kamera, UnsupportedModelError, WindowTooLongError


def test_text_that_sees_what_follows() -> None:
    model, processor = gemma3(torch.float32)
    model.config.text_config.use_bidirectional_attention = True
    with pytest.raises(UnsupportedModelError, match="every token sees what follows it"):
        Kamera(model, processor)


def test_visual_words_drawn_at_random() -> None:
    model, processor = ovis2(torch.float32)
    model.config.vision_config.tokenize_function = "gumbel_argmax"
    with pytest.raises(UnsupportedModelError, match="never the same chunk"):
        Kamera(model, processor)


def test_what_speaks() -> None:
    """The whole of Qwen2.5-Omni: what it says is no text."""
    thinker, processor = qwen2_5_omni(torch.float32)
    config = Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    with torch.device("meta"):
        model = Qwen2_5OmniForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match="what it writes is served here; pass model"):
        Kamera(model, processor)


def test_seconds_drawn_into_frames() -> None:
    with Kamera(*ernie4_5_vl_moe(torch.float32)) as kamera, pytest.raises(InputError, match="Add the frames as images"):
        kamera.window().add_frames([screenshot(0), screenshot(1)])


@pytest.mark.parametrize("build", [internvl, mistral3_ministral3])
def test_beyond_the_original_length(build: Callable[..., Any]) -> None:
    """Dynamic NTK turns keys otherwise there, and Ministral 3 scales its queries by their positions."""
    model, processor = build(torch.float32)
    decoder = model.model.language_model
    near, far = (hidden_states(decoder, start) for start in (0, 1000))
    assert max_error(near, far) < 1e-4
    assert max_error(near, hidden_states(decoder, MAX_POSITIONS + 1000)) > 1e-2
    with Kamera(model, processor) as kamera:
        window = kamera.window()
        window.add_text("a page " * MAX_POSITIONS)
        with pytest.raises(WindowTooLongError, match=f"built for {MAX_POSITIONS}"):
            window.logits("what is it?")


@torch.no_grad()
def hidden_states(decoder: Any, start: int) -> torch.Tensor:
    """What a text model makes of the same tokens in a row, the first of them at this position."""
    positions = torch.arange(start, start + 40)[None]
    return decoder(input_ids=torch.arange(40)[None], position_ids=positions, use_cache=False).last_hidden_state
