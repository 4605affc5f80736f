"""Small models of the real classes, random weights, with the real processors: one line for each backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.backbones.zoo.gemma3 import gemma3
from benchmarks.backbones.zoo.llava import llava, llava_deepseek_v2, llava_deepseek_v3

Attention = Literal["GQA", "MHA", "MLA"]


class Backbone(NamedTuple):
    """A row of the matrix. build gives (model, processor) in a dtype, weights seeded."""

    name: str
    attention: Attention
    build: Callable[[torch.dtype], tuple[Any, Any]]


MATRIX = (
    Backbone("gemma3", "GQA", gemma3),
    Backbone("llava", "MHA", llava),
    Backbone("llava-deepseek_v2", "MLA", llava_deepseek_v2),
    Backbone("llava-deepseek_v3", "MLA", llava_deepseek_v3),
)
