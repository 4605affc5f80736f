"""Kimi K2.5."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature, Kimi_K25Config, Kimi_K25ForConditionalGeneration, Kimi_K25Processor
from transformers.image_processing_backends import PilBackend

from benchmarks.backbones.zoo.parts import LATENT, build, template, text_config, tokenizer, without_video

TEMPLATE = template(
    opens={
        "system": "<|im_system|>system<|im_middle|>",
        "user": "<|im_user|>user<|im_middle|>",
        "assistant": "<|im_assistant|>assistant<|im_middle|>",
    },
    closes={"system": "<|im_end|>", "user": "<|im_end|>", "assistant": "<|im_end|>"},
    image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
)
MARKERS = [
    "[BOS]",
    "[EOS]",
    "<|im_system|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_middle|>",
    "<|im_end|>",
    "<|media_begin|>",
    "<|media_content|>",
    "<|media_pad|>",
    "<|media_end|>",
    "<|kimi_k25_video_placeholder|>",
]
PATCH, MERGE = 14, 2


class KimiPixels(PilBackend):
    """Stands in for Kimi_K25ImageProcessor on small images. The real class needs torchvision.

    An image is padded with black to whole squares of patches and cut row by row.
    """

    do_rescale, do_normalize, do_convert_rgb = True, True, True
    rescale_factor, image_mean, image_std = 1 / 255, 0.5, 0.5
    merge_size = MERGE
    model_input_names: ClassVar = ["pixel_values", "image_grid_thw"]

    def _preprocess(self, images: list[np.ndarray], return_tensors: str | None = None, **options: Any) -> BatchFeature:
        patches, grids = zip(*map(self._cut, images), strict=True)
        inputs = {"pixel_values": np.concatenate(patches), "image_grid_thw": np.array(grids)}
        return BatchFeature(inputs, tensor_type=return_tensors)

    def _cut(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
        height, width = (-(-size // (PATCH * MERGE)) * MERGE for size in image.shape[1:])
        rest = height * PATCH - image.shape[1], width * PATCH - image.shape[2]
        black = np.pad(image, ((0, 0), (0, rest[0]), (0, rest[1])))
        normal = self.normalize(self.rescale(black, self.rescale_factor), self.image_mean, self.image_std)
        patches = normal.reshape(3, height, PATCH, width, PATCH).transpose(1, 3, 0, 2, 4)
        return patches.reshape(-1, 3, PATCH, PATCH), (1, height, width)


def kimi_k25(dtype: torch.dtype) -> tuple[Any, Any]:
    """Kimi K2.5 over DeepSeek-V3. The token of a clip is outside the vocabulary."""
    words = tokenizer(MARKERS, bos="[BOS]", eos="[EOS]", image_token="<|media_pad|>")
    config = Kimi_K25Config(
        text_config=text_config(words, "deepseek_v3", **LATENT) | {"vocab_size": len(words) - 1},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "merge_kernel_size": (MERGE, MERGE),
        },
        projection_hidden_size=32,
        image_token_id=words.image_token_id,
        video_token_id=words.convert_tokens_to_ids("<|kimi_k25_video_placeholder|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|media_begin|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|media_end|>"),
        tie_word_embeddings=False,
    )
    processor = without_video(Kimi_K25Processor)(KimiPixels(), words, None, chat_template=TEMPLATE)
    return build(Kimi_K25ForConditionalGeneration, config, dtype), processor
