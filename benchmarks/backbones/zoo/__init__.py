"""Small models of the real classes with random weights and the real processors, one line per backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from transformers.utils.import_utils import is_torchao_available

from benchmarks.backbones.zoo.aya_vision import aya_vision, cohere2_vision
from benchmarks.backbones.zoo.deepseek_vl import deepseek_vl, deepseek_vl_hybrid
from benchmarks.backbones.zoo.ernie4_5_vl import ernie4_5_vl_moe
from benchmarks.backbones.zoo.flat_grid import exaone4_5, hyperclovax_vision_v2, lfm3_vl, video_llama_3
from benchmarks.backbones.zoo.gemma3 import gemma3
from benchmarks.backbones.zoo.gemma3n import gemma3n
from benchmarks.backbones.zoo.gemma4 import gemma4, gemma4_k_eq_v
from benchmarks.backbones.zoo.glm4v import glm4v, glm4v_moe, glm46v, glm_ocr
from benchmarks.backbones.zoo.idefics3 import idefics3, smolvlm
from benchmarks.backbones.zoo.internvl import internvl, internvl_qwen3, qianfan_ocr
from benchmarks.backbones.zoo.kimi_k25 import kimi_k25
from benchmarks.backbones.zoo.lfm2_vl import lfm2_vl
from benchmarks.backbones.zoo.llava import (
    llava,
    llava_deepseek_v2,
    llava_deepseek_v3,
    llava_next,
    llava_onevision,
    vipllava,
)
from benchmarks.backbones.zoo.minicpmv4_6 import minicpmv4_6
from benchmarks.backbones.zoo.ovis2 import ovis2
from benchmarks.backbones.zoo.paddleocr_vl import paddleocr_vl
from benchmarks.backbones.zoo.phi4_multimodal import phi4_multimodal
from benchmarks.backbones.zoo.pixtral import (
    lighton_ocr,
    llava_mistral,
    mistral3,
    mistral3_ministral3,
    mistral3_mistral4,
)
from benchmarks.backbones.zoo.quantised import (
    qwen2_5_vl_torchao_int8,
    qwen3_5_fp8,
    qwen3_5_torchao_float8,
    qwen3_vl_fp8,
)
from benchmarks.backbones.zoo.qwen_vl import (
    qwen2_5_omni,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_5_moe,
    qwen3_omni_moe,
    qwen3_vl,
    qwen3_vl_moe,
)
from benchmarks.backbones.zoo.step3p7 import step3p7

Attention = Literal["GQA", "MHA", "MLA"]


class Backbone(NamedTuple):
    """A row of the matrix.

    build: returns (model, processor) in a dtype, with seeded weights. weights: how these are quantised.
    """

    name: str
    attention: Attention
    build: Callable[[torch.dtype], tuple[Any, Any]]
    weights: str | None = None


MATRIX = (
    Backbone("qwen2_vl", "GQA", qwen2_vl),
    Backbone("qwen2_5_vl", "GQA", qwen2_5_vl),
    Backbone("qwen2_5_omni_thinker", "GQA", qwen2_5_omni),
    Backbone("qwen3_vl", "GQA", qwen3_vl),
    Backbone("qwen3_vl-fp8", "GQA", qwen3_vl_fp8, "fp8, dequantised at load"),
    Backbone("qwen3_vl_moe", "GQA", qwen3_vl_moe),
    Backbone("qwen3_omni_moe_thinker", "GQA", qwen3_omni_moe),
    Backbone("qwen3_5", "GQA", qwen3_5),
    Backbone("qwen3_5-fp8", "GQA", qwen3_5_fp8, "fp8, dequantised at load"),
    Backbone("qwen3_5_moe", "GQA", qwen3_5_moe),
    Backbone("glm4v", "GQA", glm4v),
    Backbone("glm4v_moe", "GQA", glm4v_moe),
    Backbone("glm46v", "GQA", glm46v),
    Backbone("glm_ocr", "GQA", glm_ocr),
    Backbone("paddleocr_vl", "GQA", paddleocr_vl),
    Backbone("ernie4_5_vl_moe", "GQA", ernie4_5_vl_moe),
    Backbone("gemma3", "GQA", gemma3),
    Backbone("gemma3n", "GQA", gemma3n),
    Backbone("gemma4", "GQA", gemma4),
    Backbone("gemma4-k_eq_v", "GQA", gemma4_k_eq_v),
    Backbone("llava", "MHA", llava),
    Backbone("llava-deepseek_v2", "MLA", llava_deepseek_v2),
    Backbone("llava-deepseek_v3", "MLA", llava_deepseek_v3),
    Backbone("llava-mistral", "GQA", llava_mistral),
    Backbone("llava_next", "GQA", llava_next),
    Backbone("vipllava", "MHA", vipllava),
    Backbone("llava_onevision", "GQA", llava_onevision),
    Backbone("internvl", "GQA", internvl),
    Backbone("internvl-qwen3", "GQA", internvl_qwen3),
    Backbone("qianfan_ocr", "GQA", qianfan_ocr),
    Backbone("idefics3", "GQA", idefics3),
    Backbone("smolvlm", "GQA", smolvlm),
    Backbone("deepseek_vl", "MHA", deepseek_vl),
    Backbone("deepseek_vl_hybrid", "MHA", deepseek_vl_hybrid),
    Backbone("mistral3", "GQA", mistral3),
    Backbone("mistral3-ministral3", "GQA", mistral3_ministral3),
    Backbone("mistral3-mistral4", "MLA", mistral3_mistral4),
    Backbone("lighton_ocr", "GQA", lighton_ocr),
    Backbone("aya_vision", "GQA", aya_vision),
    Backbone("cohere2_vision", "GQA", cohere2_vision),
    Backbone("ovis2", "GQA", ovis2),
    Backbone("exaone4_5", "GQA", exaone4_5),
    Backbone("lfm3_vl", "GQA", lfm3_vl),
    Backbone("video_llama_3", "GQA", video_llama_3),
    Backbone("hyperclovax_vision_v2", "GQA", hyperclovax_vision_v2),
    Backbone("kimi_k25", "MLA", kimi_k25),
    Backbone("phi4_multimodal", "GQA", phi4_multimodal),
    Backbone("lfm2_vl", "GQA", lfm2_vl),
    Backbone("minicpmv4_6", "GQA", minicpmv4_6),
    Backbone("step3p7", "GQA", step3p7),
)
# These need torchao.
PACKED = (
    Backbone("qwen2_5_vl-torchao_int8", "GQA", qwen2_5_vl_torchao_int8, "torchao Int8WeightOnlyConfig"),
    Backbone("qwen3_5-torchao_float8", "GQA", qwen3_5_torchao_float8, "torchao Float8WeightOnlyConfig"),
)


def installed() -> tuple[Backbone, ...]:
    """The rows whose packages are there."""
    return (*MATRIX, *PACKED) if is_torchao_available() else MATRIX
