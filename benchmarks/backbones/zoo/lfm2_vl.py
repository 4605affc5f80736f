"""LFM2-VL."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature, Lfm2VlConfig, Lfm2VlForConditionalGeneration, Lfm2VlProcessor
from transformers.image_processing_backends import PilBackend
from transformers.processing_utils import ImagesKwargs

from benchmarks.backbones.zoo.parts import TOWER, build, chatml, text_config, tokenizer, without_video

MARKERS = {"image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
PATCH, FACTOR = 9, 2


class LfmOptions(ImagesKwargs, total=False):
    """The option of Lfm2VlImageProcessor that the processor sets."""

    return_row_col_info: bool


class LfmPixels(PilBackend):
    """Stands in for Lfm2VlImageProcessor on small images. The real class needs torchvision.

    An image is one tile, padded with black to whole squares of patches.
    """

    do_rescale, do_normalize, do_convert_rgb = True, True, True
    rescale_factor, image_mean, image_std = 1 / 255, 0.5, 0.5
    encoder_patch_size, downsample_factor, tile_size, use_thumbnail = PATCH, FACTOR, 16 * PATCH, True
    valid_kwargs = LfmOptions
    model_input_names: ClassVar = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]

    def _preprocess(
        self,
        images: list[np.ndarray],
        return_tensors: str | None = None,
        return_row_col_info: bool = False,
        **options: Any,
    ) -> BatchFeature:
        patches, shapes = zip(*map(self._cut, images), strict=True)
        most = max(map(len, patches))
        inputs = {
            "pixel_values": np.stack([np.pad(one, ((0, most - len(one)), (0, 0))) for one in patches]),
            "pixel_attention_mask": np.stack([np.arange(most) < len(one) for one in patches]).astype(int),
            "spatial_shapes": np.array(shapes),
        }
        if return_row_col_info:
            sizes = [[height * PATCH, width * PATCH] for height, width in shapes]
            inputs |= {"image_rows": [1] * len(images), "image_cols": [1] * len(images), "image_sizes": sizes}
        return BatchFeature(inputs, tensor_type=return_tensors)

    def _cut(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        height, width = (-(-size // (PATCH * FACTOR)) * FACTOR for size in image.shape[1:])
        rest = height * PATCH - image.shape[1], width * PATCH - image.shape[2]
        black = np.pad(image, ((0, 0), (0, rest[0]), (0, rest[1])))
        normal = self.normalize(self.rescale(black, self.rescale_factor), self.image_mean, self.image_std)
        patches = normal.reshape(3, height, PATCH, width, PATCH).transpose(1, 3, 2, 4, 0)
        return patches.reshape(height * width, -1), (height, width)


def lfm2_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """LFM2-VL over LFM2, of which every second layer is a short convolution."""
    words = tokenizer(
        ["<|im_start|>", "<|im_end|>", "<image>", "<|img_thumbnail|>", *MARKERS.values()],
        bos=None,
        eos="<|im_end|>",
        image_token="<image>",
        **MARKERS,
    )
    config = Lfm2VlConfig(
        text_config=text_config(words, "lfm2", full_attn_idxs=[1, 3]),
        vision_config=TOWER | {"model_type": "siglip2_vision_model", "patch_size": PATCH, "num_patches": 64},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        downsample_factor=FACTOR,
        projector_hidden_size=32,
        tie_word_embeddings=False,
    )
    processor = without_video(Lfm2VlProcessor)(LfmPixels(), words, chat_template=chatml(image="<image>"))
    return build(Lfm2VlForConditionalGeneration, config, dtype), processor
