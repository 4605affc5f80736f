"""Kimi K2.5: images of any size, clips pooled over time, MLA."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.image_text import NeedsTorchvision, WrittenByRule, stills
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class KimiK25(NeedsTorchvision, WrittenByRule):
    """Kimi K2.5 and later.

    The encoder pools a few frames of a clip into one, which follows the time of the first.
    """

    model_types = ("kimi_k25",)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.image_token_id, self.model.config.video_token_id})

    @property
    def _per_group(self) -> int:
        """Number of frames that are pooled into one."""
        return int(self.model.config.vision_config.pos_emb_time)

    @property
    def _clip_options(self) -> Mapping[str, Any]:
        """Options of the image processor for frames, which are resized in another way than images."""
        video = self.processors.video_processor
        return {"max_patches": video.max_patches, "size": video.size} if video else {}

    def expand(self, pixels: Pixels) -> str:
        return self.image_token * self._num_tokens(self.image_inputs([pixels]))

    def _num_tokens(self, inputs: Mapping[str, Any]) -> int:
        """Number of tokens of the first of these images or frames."""
        _, height, width = inputs["image_grid_thw"][0].tolist()
        return int(height * width // math.prod(self.model.config.vision_config.merge_kernel_size))

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        num_tokens = self._num_tokens(self.image_inputs([frames.pixels[0]], **self._clip_options))
        pooled = (self.model.config.video_token_id,) * num_tokens
        openings = [
            self.tokens.markup(f"{_clock(seconds)}<|media_begin|>video<|media_content|>")
            for seconds in frames.timestamps[:: self._per_group]
        ]
        closing = self.tokens.markup("<|media_end|>")
        return tuple(token for opening in openings for token in (*opening, *pooled, *closing))

    def encoder_outputs(self, chunk: Chunk) -> Any:
        if chunk.kind == "image":
            return super().encoder_outputs(chunk)
        patches, grids = self._clip_inputs(chunk)
        model = self.model.model
        # Not by get_video_features: before transformers 5.24 it cannot split its own output.
        groups = zip(patches.split(grids.prod(1).tolist()), grids.split(1), strict=True)
        return [model.mm_projector(model.vision_tower(*group, return_dict=True).pooler_output) for group in groups]

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        images = [chunk for chunk in chunks if chunk.kind == "image"]
        inputs = super().pixel_inputs(images) if images else {}
        if clips := [self._clip_inputs(chunk) for chunk in chunks if chunk.kind == "frames"]:
            inputs["pixel_values_videos"], inputs["video_grid_thw"] = map(torch.cat, zip(*clips, strict=True))
        return inputs

    def _clip_inputs(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches of a clip's frames, and the grid (time, height, width) of each group of them."""
        inputs = self.image_inputs(stills(chunk), **self._clip_options)
        grids = torch.stack([group.sum(0) for group in inputs["image_grid_thw"].split(self._per_group)])
        grids[:, 1:] = inputs["image_grid_thw"][0, 1:]
        return inputs["pixel_values"], grids


def _clock(seconds: float) -> str:
    """A time of a clip as the processor writes it, truncated to milliseconds."""
    return f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}"
