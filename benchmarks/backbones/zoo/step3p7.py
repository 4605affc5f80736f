"""Step 3.7."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature, Step3p7Config, Step3p7ForConditionalGeneration, Step3p7Processor
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict

from benchmarks.backbones.zoo.parts import INITIALIZER_RANGE, build, chatml, text_config, tokenizer

MARKERS = ["<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"]
PATCH, STRIDE = 7, 4
VIEW, CROP = 3 * PATCH * STRIDE, 2 * PATCH * STRIDE


class StepPixels(PilBackend):
    """Stands in for Step3p7ImageProcessor on small images. The real class needs torchvision.

    An image is a square view of the whole and four crops, or two if it is twice as long as wide.
    """

    do_rescale, do_normalize, do_convert_rgb = True, True, True
    rescale_factor, image_mean, image_std = 1 / 255, 0.5, 0.5
    size: ClassVar = {"height": VIEW, "width": VIEW}
    patch_size, vision_patch_size, downsampler_stride = CROP, PATCH, STRIDE
    model_input_names: ClassVar = ["pixel_values", "pixel_values_local", "num_local_patches"]

    def _preprocess(self, images: list[np.ndarray], return_tensors: str | None = None, **options: Any) -> BatchFeature:
        grids = [(1 if 2 * height < 3 * width else 2, 2) for _, height, width in (one.shape for one in images)]
        crops = [self._crops(image, *grid) for image, grid in zip(images, grids, strict=True)]
        inputs = {
            "pixel_values": np.stack([self._resized(image, VIEW, VIEW) for image in images]),
            "pixel_values_local": np.concatenate(crops),
            "num_local_patches": [len(one) for one in crops],
        }
        batch = BatchFeature(inputs, tensor_type=return_tensors)
        batch["patch_newline_masks"] = [
            [(row, column) == (0, 1) and rows > 1 for row in range(rows) for column in range(columns)]
            for rows, columns in grids
        ]
        return batch

    def _crops(self, image: np.ndarray, rows: int, columns: int) -> np.ndarray:
        whole = self._resized(image, rows * CROP, columns * CROP)
        return whole.reshape(3, rows, CROP, columns, CROP).transpose(1, 3, 0, 2, 4).reshape(-1, 3, CROP, CROP)

    def _resized(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        resized = self.resize(image, SizeDict(height=height, width=width), resample=PILImageResampling.BILINEAR)
        return self.normalize(self.rescale(resized, self.rescale_factor), self.image_mean, self.image_std)


def step3p7(dtype: torch.dtype) -> tuple[Any, Any]:
    """Step 3.7, with more query heads in sliding layers, and RoPE over a part of each head in full ones."""
    words = tokenizer(["<|im_start|>", "<|im_end|>", *MARKERS], bos=None, eos="<|im_end|>", image_token="<im_patch>")
    kinds = ["sliding_attention", "full_attention"] * 2
    text = text_config(
        words,
        "step3p5",
        layer_types=kinds,
        pad_token_id=words.eos_token_id,
        sliding_window=20,
        num_sliding_attention_heads=6,
        mlp_layer_types=["dense", "sparse"] * 2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        share_expert_dim=32,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
        },
    )
    vision = {
        "hidden_size": 32,
        "mlp_ratio": 2.0,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": VIEW,
        "patch_size": PATCH,
        "max_position_embeddings": (VIEW // PATCH) ** 2,
        "initializer_range": INITIALIZER_RANGE,
    }
    config = Step3p7Config(
        text_config=text,
        vision_config=vision,
        image_token_id=words.image_token_id,
        tie_word_embeddings=False,
    )
    processor = Step3p7Processor(StepPixels(), words, chat_template=chatml(image="<im_patch>"))
    return build(Step3p7ForConditionalGeneration, config, dtype), processor
