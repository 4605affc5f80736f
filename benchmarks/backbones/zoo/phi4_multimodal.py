"""Phi-4-multimodal with its vision tower."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import (
    BatchFeature,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    Phi4MultimodalProcessor,
)
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict

from benchmarks.backbones.zoo.parts import MAX_POSITIONS, build, fill_zeros, template, text_config, tokenizer

TEMPLATE = template(
    opens={"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"},
    closes={"system": "<|end|>", "user": "<|end|>", "assistant": "<|end|>"},
    image="<|image|>",
)
MARKERS = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|image|>", "<|audio|>"]
PATCH = 14
TILE = 6 * PATCH
ROTARY_PAIRS = 6
# Longer than any window of the matrix, so no RoPE table switches.
SWITCH = 3 * MAX_POSITIONS // 4


class PhiPixels(PilBackend):
    """Stands in for Phi4MultimodalImageProcessor, which needs torchvision.

    An image is scaled to the fewest tiles that hold it and padded with white; patches of padding are masked. A view of
    the whole image precedes the tiles. Two by two patches become a token. One more token ends every row of them, and
    one separates the tiles from the view.
    """

    do_resize, do_rescale, do_normalize, do_convert_rgb = True, True, True, True
    rescale_factor, resample = 1 / 255, PILImageResampling.BICUBIC
    image_mean, image_std = [0.5] * 3, [0.5] * 3
    size: ClassVar = {"height": TILE, "width": TILE}
    model_input_names: ClassVar = ["image_pixel_values", "image_sizes", "image_attention_mask"]

    def _preprocess(self, images: list[np.ndarray], return_tensors: str | None = None, **options: Any) -> BatchFeature:
        tiled = [self._tile(image) for image in images]
        most = max(len(tiles) for tiles, _, _ in tiled)
        side = TILE // PATCH
        pixels, masks = np.zeros((len(tiled), most, 3, TILE, TILE), np.float32), np.ones((len(tiled), most, side, side))
        for index, (tiles, mask, _) in enumerate(tiled):
            pixels[index, : len(tiles)], masks[index, : len(tiles)] = tiles, mask
        inputs = {
            "image_pixel_values": pixels,
            "image_sizes": [size for _, _, size in tiled],
            "image_attention_mask": masks,
            "num_img_tokens": [_num_tokens(mask, size) for _, mask, size in tiled],
        }
        return BatchFeature(inputs, tensor_type=return_tensors)

    def _tile(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """View and tiles [1 + n, 3, TILE, TILE], their masks [1 + n, side, side], and (height, width) of all tiles."""
        _, height, width = image.shape
        rows, columns = math.ceil(height / TILE), math.ceil(width / TILE)
        scale = min(rows * TILE / height, columns * TILE / width)
        scaled = self.resize(image, SizeDict(height=int(height * scale), width=int(width * scale)), self.resample)
        padding = rows * TILE - scaled.shape[1], columns * TILE - scaled.shape[2]
        white = np.pad(scaled, ((0, 0), (0, padding[0]), (0, padding[1])), constant_values=255)
        mask = np.ones((rows * TILE // PATCH, columns * TILE // PATCH))
        mask[len(mask) - padding[0] // PATCH :] = 0
        mask[:, mask.shape[1] - padding[1] // PATCH :] = 0
        view = self.resize(white, SizeDict(height=TILE, width=TILE), self.resample)
        pixels = np.concatenate([view[None], _cut(white, rows, columns)])
        masks = np.concatenate([np.ones((1, TILE // PATCH, TILE // PATCH)), _cut(mask[None], rows, columns)[:, 0]])
        normal = [
            self.normalize(self.rescale(tile, self.rescale_factor), self.image_mean, self.image_std) for tile in pixels
        ]
        return np.stack(normal), masks, (rows * TILE, columns * TILE)


def _cut(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Tiles [rows · columns, C, h, w] of an image [C, H, W]."""
    channels, height, width = image.shape
    grid = image.reshape(channels, rows, height // rows, columns, width // columns)
    return grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, height // rows, width // columns)


def _num_tokens(masks: np.ndarray, size: tuple[int, int]) -> int:
    """Tokens of an image: those of tiles and view, and those that end rows."""
    rows, columns = size[0] // TILE, size[1] // TILE
    halves = masks[1:, ::2, ::2].reshape(rows, columns, *masks[0, ::2, ::2].shape)
    useful_rows = int(halves[:, 0, :, 0].sum())
    side = halves.shape[-1]
    return side * side + side + 1 + int(halves.sum()) + useful_rows


class PhiProcessor(Phi4MultimodalProcessor):
    """The real processor, which accepts an image processor of another class."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return type(argument)


def phi4_multimodal(dtype: torch.dtype, switch: int = SWITCH) -> tuple[Any, Any]:
    """Phi-4-multimodal. RoPE rotates three quarters of a head.

    switch: position at which longrope changes from the short factors to the long ones.
    """
    named = {"image_token": "<|image|>", "audio_token": "<|audio|>"}
    words = tokenizer(MARKERS, bos="<|endoftext|>", eos="<|endoftext|>", **named)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.75,
        "factor": MAX_POSITIONS / switch,
        "short_factor": [1.0 + 0.1 * pair for pair in range(ROTARY_PAIRS)],
        "long_factor": [2.0 + pair for pair in range(ROTARY_PAIRS)],
    }
    text = text_config(words, "phi4_multimodal", rope_parameters=rope, original_max_position_embeddings=switch)
    text |= {"pad_token_id": words.convert_tokens_to_ids("<|endoftext|>")}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": TILE,
        "patch_size": PATCH,
        "crop_size": TILE,
        "image_token_id": words.image_token_id,
    }
    audio = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_blocks": 1,
        "num_attention_heads": 1,
        "ext_pw_out_channel": 16,
        "depthwise_separable_out_channel": 16,
        "nemo_conv_channels": 16,
        "audio_token_id": words.audio_token_id,
    }
    config = Phi4MultimodalConfig(**text, vision_config=vision, audio_config=audio)
    model = build(Phi4MultimodalForCausalLM, config, dtype)
    fill_zeros(model, "global_img_feature_extensor", "sub_img_feature_extensor")
    processor = PhiProcessor(PhiPixels(), Phi4MultimodalFeatureExtractor(), words)
    processor.chat_template = TEMPLATE
    return model, processor
