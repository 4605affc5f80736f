"""The survey of text models, on two of them."""

import pytest
import torch

from benchmarks.backbones.text_types import measure
from benchmarks.backbones.zoo.text_only import text_only


@pytest.mark.parametrize("model_type", ["gemma2", "smollm3"])
def test_errors_are_of_rounding(model_type: str) -> None:
    model, processor = text_only(model_type, torch.float32)
    assert max(measure(model, processor.tokenizer)) <= 1e-5
