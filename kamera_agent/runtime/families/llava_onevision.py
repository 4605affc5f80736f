"""LLaVA-OneVision: tiles with a newline after each row, and clips with a quarter of the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.errors import InputError
from kamera_agent.runtime.families.image_text import WrittenByRule
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class LlavaOnevision(WrittenByRule):
    """LLaVA-OneVision (arXiv 2408.03326).

    Every image is written as if it were the only one of its prompt: a base view and tiles. Frames have no tiles.
    """

    model_types = ("llava_onevision",)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.image_token_id, self.model.config.video_token_id})

    @property
    def _side(self) -> int:
        """Number of patches along the side of a tile."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def expand(self, pixels: Pixels) -> str:
        inputs = self.image_inputs([pixels])
        # The model's own packing gives the number of rows for tiles of this many patches.
        tiles = torch.zeros(inputs["pixel_values"].shape[1], self._side**2, 1)
        aspect_ratio = self.model.config.vision_aspect_ratio
        rows, _ = self.model.model.pack_image_features([tiles], inputs["image_sizes"], torch.zeros(1), aspect_ratio)
        return self.image_token * len(rows[0])

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        video_token = self.processors.tokenizer.convert_ids_to_tokens(self.model.config.video_token_id)
        return self.fill(video_token * (len(frames.pixels) * math.ceil(self._side / 2) ** 2 + 1))

    def encoder_outputs(self, chunk: Chunk) -> Any:
        if chunk.kind == "image":
            return super().encoder_outputs(chunk)
        # Positional, because transformers 5.24 renamed the argument. Earlier versions omit the newline after a clip.
        frames = self.pixel_inputs([chunk])["pixel_values_videos"]
        rows: torch.Tensor = self.model.model.get_video_features(frames, return_dict=True).pooler_output[0]
        num_frame_rows = len(frames[0]) * math.ceil(self._side / 2) ** 2
        return torch.cat([rows[:num_frame_rows], self.model.model.image_newline[None].to(rows)])

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        images = [chunk for chunk in chunks if chunk.kind == "image"]
        inputs = super().pixel_inputs(images) if images else {}
        if clips := [self._base_views(chunk) for chunk in chunks if chunk.kind == "frames"]:
            if len({len(clip) for clip in clips}) > 1:
                lengths = ", ".join(str(len(clip)) for clip in clips)
                raise InputError(
                    f"The window has clips of {lengths} frames, and a plain forward pass of this model takes clips of "
                    "one length only. Answers over the window are not affected."
                )
            inputs["pixel_values_videos"] = torch.stack(clips)
        return inputs

    def _base_views(self, chunk: Chunk) -> torch.Tensor:
        """Frames [N, C, H, W] as the video processor resizes them, which is as the base views of images."""
        size = self.model.config.vision_config.image_size
        views: torch.Tensor = self.image_inputs(list(chunk.pixels), image_grid_pinpoints=[[size, size]])["pixel_values"]
        return views[:, 0]
