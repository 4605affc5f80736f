"""What cannot be served exactly is refused, with the reason and what to do."""

import pytest
import torch

from benchmarks.backbones.zoo.gemma3 import gemma3
from benchmarks.backbones.zoo.ovis2 import ovis2
from kamera_agent import Kamera, UnsupportedModelError


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
