"""The trained models: real classes with the real processors, one entry per backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from benchmarks.backbones.zoo.deepseek_vl import deepseek_vl
from benchmarks.backbones.zoo.gemma4 import gemma4
from benchmarks.backbones.zoo.internvl import internvl
from benchmarks.backbones.zoo.llava import llava, llava_deepseek_v3
from benchmarks.backbones.zoo.parts import fill_zeros, remembering
from benchmarks.backbones.zoo.qwen_vl import qwen2_5_vl, qwen3_5, qwen3_vl
from kamera_agent.pocket.screen import CELL

Options = Mapping[str, Any]

# Pictures are squares, because some towers accept nothing else.
COLUMNS = 4
SIDE = COLUMNS * CELL
SQUARE = {"height": SIDE, "width": SIDE}
HIDDEN = 128
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "head_dim": 32,
    "initializer_range": 0.08,
}
MHA = {"num_key_value_heads": 4}
MLA = MHA | {
    "q_lora_rank": 96,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "head_dim": 16,
    # All layers are dense: experts would need more training steps.
    "first_k_dense_replace": 5,
}
# A recurrent layer before each full one. The inputs of 31 tokens take no more room than a map, so a picture is kept as
# inputs.
DELTA = {
    "num_hidden_layers": 10,
    "intermediate_size": 256,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "layer_types": ["linear_attention", "full_attention"] * 5,
}
# Sliding layers that see little more than a picture, and full ones with wider heads. The last two have no KV.
SLIDING = {
    "num_hidden_layers": 8,
    "intermediate_size": 256,
    "sliding_window": 24,
    "global_head_dim": 64,
    "num_kv_shared_layers": 2,
    "layer_types": [{"s": "sliding_attention", "f": "full_attention"}[kind] for kind in "sffsffsf"],
}
MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5]}
TOWER = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "initializer_range": 0.08,
    "image_size": SIDE,
    "patch_size": CELL,
}
# Four patches become one token.
MERGING = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "depth": 2,
    "out_hidden_size": HIDDEN,
    "initializer_range": 0.08,
    "patch_size": CELL // 2,
}
# LLaVA uses the output of the last layer but one.
CLIP = TOWER | {"num_hidden_layers": 3}
CLIP_PIXELS = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE, "patch_size": CELL}


class Backbone(NamedTuple):
    """A small model of the matrix, and options that replace those of text model, vision tower and image processor."""

    small: Callable[[torch.dtype], tuple[Any, Any]]
    text: Options
    vision: Options
    pixels: Options


BACKBONES = {
    "qwen2_5_vl": Backbone(
        qwen2_5_vl,
        {"rope_parameters": MROPE},
        MERGING | {"window_size": 2 * CELL, "fullatt_block_indexes": [1]},
        {"patch_size": CELL // 2},
    ),
    "qwen3_vl": Backbone(
        qwen3_vl,
        {"rope_parameters": MROPE | {"mrope_interleaved": True}},
        MERGING | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        {"patch_size": CELL // 2},
    ),
    "internvl": Backbone(
        internvl, {}, TOWER | {"image_size": [SIDE, SIDE], "patch_size": [CELL // 2, CELL // 2]}, {"size": SQUARE}
    ),
    "deepseek_vl": Backbone(deepseek_vl, MHA, TOWER, {"size": SQUARE}),
    "llava": Backbone(llava, MHA, CLIP, CLIP_PIXELS),
    "llava-deepseek_v3": Backbone(llava_deepseek_v3, MLA, CLIP, CLIP_PIXELS),
    "qwen3_5": Backbone(
        qwen3_5,
        DELTA | {"rope_parameters": MROPE | {"mrope_section": [3, 3, 2], "partial_rotary_factor": 0.5}},
        MERGING | {"num_position_embeddings": 64},
        {"patch_size": CELL // 2},
    ),
    "gemma4": Backbone(
        gemma4,
        SLIDING,
        TOWER | {"num_key_value_heads": 4, "head_dim": 32, "patch_size": CELL // 2, "pooling_kernel_size": 2},
        {"patch_size": CELL // 2, "pooling_kernel_size": 2, "do_resize": False},
    ),
}


def build(name: str, seed: int) -> tuple[Any, Any]:
    """A model with seeded random weights, and its processor. The state of the global generator is restored."""
    small, text, vision, pixels = BACKBONES[name]
    model, processor = small(torch.float32)
    settings = model.config.to_dict()
    settings["text_config"] = _resized(settings["text_config"], {**TEXT, **text})
    settings["vision_config"] = _resized(settings["vision_config"], vision)
    # A word has the same code as input and as output.
    settings["tie_word_embeddings"] = settings["text_config"]["tie_word_embeddings"] = True
    if "image_seq_length" in settings:
        settings["image_seq_length"] = COLUMNS**2
    counts = {"num_image_tokens": COLUMNS**2, "image_seq_length": COLUMNS**2}
    for part in (processor, processor.image_processor):
        for option, value in {**pixels, **counts}.items():
            if hasattr(part, option):
                setattr(part, option, value)
    config = type(model.config)(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(model)._from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    return soft(remembering(fill_zeros(model, "position_embedding_table"))), processor


def soft(model: Any) -> Any:
    """The model, with shorter queries where norms make them long: its first attention would be to a single token."""
    for part in model.modules():
        if getattr(part, "scaling", None) == 1.0 and hasattr(part, "q_norm"):
            part.q_norm.weight.data.mul_(part.head_dim**-0.5)
    return model


def _resized(settings: Options, options: Options) -> dict[str, Any]:
    """A configuration with other options, without the entries that are derived from them."""
    derived = ("layer_types", "mlp_layer_types", "per_layer_config")
    return {name: value for name, value in settings.items() if name not in derived} | options
