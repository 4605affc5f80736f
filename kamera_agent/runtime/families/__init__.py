"""The registry of backbones, and loading a family by model id."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

from kamera_agent.errors import ModelError, UnsupportedModelError
from kamera_agent.runtime.families.aya_vision import AyaVision, CommandAVision
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.deepseek_vl import DeepseekVL
from kamera_agent.runtime.families.ernie4_5_vl import Ernie45VL
from kamera_agent.runtime.families.flat_grid import FlatGrid, HyperClovaX
from kamera_agent.runtime.families.gemma3 import Gemma3
from kamera_agent.runtime.families.gemma3n import Gemma3n, Gemma3nText
from kamera_agent.runtime.families.gemma4 import Gemma4, Gemma4Text
from kamera_agent.runtime.families.glm4v import Glm4V
from kamera_agent.runtime.families.idefics3 import Idefics3, SmolVLM
from kamera_agent.runtime.families.internvl import InternVL
from kamera_agent.runtime.families.kimi_k25 import KimiK25
from kamera_agent.runtime.families.lfm2_vl import Lfm2VL
from kamera_agent.runtime.families.llava import Llava
from kamera_agent.runtime.families.llava_onevision import LlavaOnevision
from kamera_agent.runtime.families.minicpmv4_6 import MiniCpmV46
from kamera_agent.runtime.families.ovis2 import Ovis2
from kamera_agent.runtime.families.paddleocr_vl import PaddleOcrVL
from kamera_agent.runtime.families.phi4_multimodal import Phi4Multimodal
from kamera_agent.runtime.families.pixtral import LightOnOcr, Mistral3
from kamera_agent.runtime.families.processors import take_parts
from kamera_agent.runtime.families.qianfan_ocr import QianfanOcr
from kamera_agent.runtime.families.quantisation import finish_loading
from kamera_agent.runtime.families.qwen2_5_omni import Qwen25Omni
from kamera_agent.runtime.families.qwen2_vl import Qwen2VL
from kamera_agent.runtime.families.qwen3_5 import Qwen35
from kamera_agent.runtime.families.qwen3_omni import Qwen3Omni
from kamera_agent.runtime.families.qwen3_vl import Qwen3VL
from kamera_agent.runtime.families.refusals import check_config, check_model, take_masks
from kamera_agent.runtime.families.step3p7 import Step3p7
from kamera_agent.runtime.families.target import read_device, read_dtype
from kamera_agent.runtime.families.text_only import TextOnly

FAMILIES: tuple[type[Family], ...] = (
    Qwen2VL,
    Qwen25Omni,
    Qwen3VL,
    Qwen3Omni,
    Qwen35,
    Glm4V,
    PaddleOcrVL,
    Ernie45VL,
    Llava,
    LlavaOnevision,
    InternVL,
    QianfanOcr,
    Idefics3,
    SmolVLM,
    DeepseekVL,
    Mistral3,
    LightOnOcr,
    AyaVision,
    CommandAVision,
    Ovis2,
    FlatGrid,
    HyperClovaX,
    Gemma3,
    Gemma3n,
    Gemma3nText,
    Gemma4,
    Gemma4Text,
    Phi4Multimodal,
    KimiK25,
    Lfm2VL,
    MiniCpmV46,
    Step3p7,
    TextOnly,
)


class Checkpoint(NamedTuple):
    """A loaded model and what prepares its inputs, as family_for takes them."""

    model: Any
    processor: Any


def family_for(model: Any, processor: Any) -> Family:
    """The family of a loaded model.

    processor: a Hugging Face processor, or any object with `tokenizer` and, for a model with eyes, `image_processor`
    (`video_processor` is used if present). For a model without eyes a tokenizer is enough.
    A kind of attention that takes no 4-D mask is switched to sdpa, with a warning.
    Raises UnsupportedModelError for a model that no family knows or that cannot be served exactly, ModelError for a
    processor without a part that the model needs.
    """
    if (config := getattr(model, "config", None)) is None:
        raise UnsupportedModelError(f"{type(model).__name__} has no config, so no family serves it.")
    check_config(config)
    family = find_family(config)
    needed = ("tokenizer", "image_processor") if family.has_eyes else ("tokenizer",)
    processors = take_parts(processor, *needed)
    model.eval()
    finish_loading(model)
    served = family(model, processors)
    check_model(model)
    take_masks(model)
    return served


def find_family(config: Any) -> type[Family]:
    """The family class of a model's configuration. Raises UnsupportedModelError."""
    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return TextOnly
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UnsupportedModelError(
        f"No family serves the model type {config.model_type!r}; supported are causal text models and {known}."
    )


def load(
    model_id: str, *, device: str = "auto", dtype: str | torch.dtype = "auto", revision: str | None = None
) -> Checkpoint:
    """Load a checkpoint by hub id or folder.

    device: "auto" takes the first GPU, else the CPU. dtype: "auto" takes the checkpoint's own.
    Raises SettingError for another device or dtype, UnsupportedModelError before the weights are read, and ModelError
    if they cannot be.
    """
    target, precision = read_device(device), read_dtype(dtype)
    try:
        config = AutoConfig.from_pretrained(model_id, revision=revision)
        check_config(config)
        family = find_family(config)
        options = family.load_options(config)
        processor = family.load_processor(model_id, revision)
        model: Any = family.auto_model.from_pretrained(model_id, revision=revision, dtype=precision, **options)
    except (ImportError, OSError, ValueError) as error:  # a part of it may need a package that is missing
        raise ModelError(f"Cannot load {model_id!r}: {error}") from error
    return Checkpoint(model.to(target), processor)
