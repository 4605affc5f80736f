"""From pixels to the patches that a Qwen vision tower takes."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from kamera_agent.chunk import Chunk
from kamera_agent.errors import ImageError, UnsupportedModelError
from kamera_agent.runtime.families.base import Processors
from kamera_agent.vision.frames import pad_to_multiple

Grid = tuple[int, int, int]

MAX_ASPECT = 200


class QwenPatchifier:
    """Foretells the grid of an image without touching it, and makes the patches when they are needed.

    Frames go through the video processor where there is one, else through the image processor.
    """

    def __init__(self, processors: Processors) -> None:
        self._image = processors.image_processor
        self._video = processors.video_processor

    @property
    def frames_per_group(self) -> int:
        """Frames that become one step of the temporal grid."""
        return int((self._video or self._image).temporal_patch_size)

    def image_grid(self, height: int, width: int) -> Grid:
        """Patches (time, height, width) of an image. Raises ImageError for a sliver."""
        return 1, *_grid(self._image, height, width)

    def frames_grid(self, num_frames: int, height: int, width: int) -> Grid:
        """Patches (time, height, width) of a frame group. Raises ImageError for slivers."""
        return math.ceil(num_frames / self.frames_per_group), *_grid(self._video or self._image, height, width)

    def patches(self, chunk: Chunk) -> torch.Tensor:
        """Patches [time * height * width, C * t * p * p] of a chunk, on the CPU.

        Raises UnsupportedModelError when the processor makes another grid than was foretold.
        """
        values, grid = self._process(chunk)
        if tuple(grid[0].tolist()) != chunk.grid:
            raise UnsupportedModelError(
                f"{type(self._image).__name__} made a grid of {tuple(grid[0].tolist())} where {chunk.grid} was "
                "foretold: it resizes in a way this family does not know. Use the checkpoint's own processor."
            )
        return values

    def _process(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        if chunk.kind == "image":
            batch = self._image(images=[chunk.pixels], return_tensors="pt")
            return batch["pixel_values"], batch["image_grid_thw"]
        if self._video is not None:
            clip = torch.from_numpy(chunk.pixels).permute(0, 3, 1, 2)
            batch = self._video(videos=[clip], do_sample_frames=False, return_tensors="pt")
            return batch["pixel_values_videos"], batch["video_grid_thw"]
        return self._group_stills(chunk)

    def _group_stills(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        """Video patches from the image processor.

        It repeats a still along the temporal patch: one copy of each frame is taken, and neighbouring frames
        are put together.
        """
        per_group, num_groups, area = self.frames_per_group, chunk.grid[0], self._image.patch_size**2
        batch = self._image(images=list(pad_to_multiple(chunk.pixels, per_group)), return_tensors="pt")
        stills = batch["pixel_values"].view(num_groups, per_group, -1, 3, per_group, area)
        values = stills[:, :, :, :, 0].permute(0, 2, 3, 1, 4).reshape(-1, 3 * per_group * area)
        grid = batch["image_grid_thw"][:1].clone()
        grid[0, 0] = num_groups
        return values, grid


def _grid(processor: Any, height: int, width: int) -> tuple[int, int]:
    """Patches (height, width) that the processor makes of an image."""
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(f"The image is {width}x{height}; one side is over {MAX_ASPECT} times the other. Crop it.")
    resized_height, resized_width = smart_resize(
        height,
        width,
        processor.patch_size * processor.merge_size,
        min_pixels=processor.size["shortest_edge"],
        max_pixels=processor.size["longest_edge"],
    )
    return resized_height // processor.patch_size, resized_width // processor.patch_size
