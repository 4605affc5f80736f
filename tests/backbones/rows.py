"""A row of the matrix, built."""

from typing import Any, NamedTuple

import pytest
import torch

from benchmarks.backbones.zoo import MATRIX, Backbone, installed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Row(NamedTuple):
    backbone: Backbone
    model: Any
    processor: Any
    dtype: torch.dtype


def rows(*dtypes: str) -> Any:
    """Parameters: every backbone in these dtypes."""
    return [
        pytest.param((backbone, dtype), id=f"{backbone.name}-{dtype}") for backbone in installed() for dtype in dtypes
    ]


def named(*names: str) -> Any:
    """Parameters: these backbones in float32."""
    backbones = [next(backbone for backbone in MATRIX if backbone.name == name) for name in names]
    return [pytest.param((backbone, "fp32"), id=backbone.name) for backbone in backbones]
