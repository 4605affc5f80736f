"""Backbones with quantised weights, loaded from checkpoints as they are published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import FineGrainedFP8Config, TorchAoConfig

from benchmarks.backbones.zoo.qwen_vl import qwen2_5_vl, qwen3_5, qwen3_vl

Build = Callable[[torch.dtype], tuple[Any, Any]]
# Rows and columns that share a scale in a checkpoint of FP8; 128 in public ones.
BLOCK = 16
FP8 = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [BLOCK, BLOCK],
    "modules_to_not_convert": ["lm_head", "model.visual"],
}


def qwen3_vl_fp8(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3-VL in FP8, dequantised at load."""
    return _fp8(qwen3_vl, dtype)


def qwen3_5_fp8(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3.5 in FP8, dequantised at load."""
    return _fp8(qwen3_5, dtype)


def qwen2_5_vl_torchao_int8(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen2.5-VL with weights of 8 bits, which stay packed. Needs torchao."""
    from torchao.quantization import Int8WeightOnlyConfig

    return _torchao(qwen2_5_vl, dtype, Int8WeightOnlyConfig())


def qwen3_5_torchao_float8(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3.5 with weights in float8, which stay packed. Needs torchao."""
    from torchao.quantization import Float8WeightOnlyConfig

    return _torchao(qwen3_5, dtype, Float8WeightOnlyConfig())


def _torchao(build: Build, dtype: torch.dtype, scheme: Any) -> tuple[Any, Any]:
    model, processor = build(dtype)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        quantised = type(model).from_pretrained(folder, dtype=dtype, quantization_config=TorchAoConfig(scheme))
    return quantised.eval(), processor


def _fp8(build: Build, dtype: torch.dtype) -> tuple[Any, Any]:
    model, processor = build(dtype)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        _pack(Path(folder))
        dense = FineGrainedFP8Config(dequantize=True)  # as by itself where there is no GPU
        quantised = type(model).from_pretrained(folder, dtype=dtype, quantization_config=dense)
    return quantised.eval(), processor


def _pack(folder: Path) -> None:
    """Make a checkpoint of FP8 of one of floats: the projections of its text model, with a scale for each block."""
    weights = load_file(folder / "model.safetensors")
    packed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if ".layers." in name and name.endswith("proj.weight"):
            blocks = weight.float().unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
            scales = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
            packed[name] = (blocks / scales[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
            packed[f"{name}_scale_inv"] = scales
        else:
            packed[name] = weight
    save_file(packed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": FP8}), "utf-8")
