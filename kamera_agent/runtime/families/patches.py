"""From pixels to the patches that a vision tower of the Qwen family takes."""

from __future__ import annotations

import math
from typing import Any

import torch

from kamera_agent.runtime.families.processors import LAYOUT, Processors, sizing
from kamera_agent.vision.frames import pad_to_multiple
from kamera_agent.vision.image import Pixels

Grid = tuple[int, int, int]


class Patchifier:
    """Gets patches and their grid from the processors.

    Pixels are those of an image [H, W, 3] or of a frame group [N, H, W, 3]. Frames go through the video processor if
    there is one, else through the image processor.
    """

    def __init__(self, processors: Processors) -> None:
        self._image = processors.image_processor
        self._video = processors.video_processor
        self._grids: dict[tuple[int, ...], Grid] = {}

    @property
    def frames_per_group(self) -> int:
        """Number of frames in one step of the temporal grid."""
        return int((self._video or self._image).temporal_patch_size)

    @property
    def pads_per_group(self) -> int:
        """Number of patches per placeholder."""
        return int(self._image.merge_size) ** 2

    def grid(self, pixels: Pixels) -> Grid:
        """Patches (time, height, width) of an image or frame group. The processor runs once per size.

        Raises ImageError, or VideoError for frames, where the processor refuses their size.
        """
        if pixels.shape not in self._grids:
            with sizing(self._image if pixels.ndim == 3 else self._video or self._image, pixels):
                self._grids[pixels.shape] = self._learn_grid(pixels)
        return self._grids[pixels.shape]

    def _learn_grid(self, pixels: Pixels) -> Grid:
        # The patches of a whole clip would take many times the memory of its pixels, and be thrown away.
        if pixels.ndim == 3:
            grid = self._stills([pixels])["image_grid_thw"]
        elif self._video is None:
            _, height, width = self._learn_grid(pixels[0])
            return math.ceil(len(pixels) / self.frames_per_group), height, width
        else:
            # A video processor may choose the size by the number of frames. On the meta device it computes shapes only.
            num_frames, height, width, _ = pixels.shape
            blank = torch.empty((num_frames, 3, height, width), dtype=torch.uint8, device="meta")
            grid = self._clip(blank)["video_grid_thw"]
        time, height, width = grid[0].tolist()
        return time, height, width

    def patches(self, pixels: Pixels) -> torch.Tensor:
        """Patches [time * height * width, C * t * p * p] of an image or frame group, on the CPU."""
        patches: torch.Tensor
        if pixels.ndim == 3:
            patches = self._stills([pixels])["pixel_values"]
        elif self._video is None:
            patches = self._group_stills(pixels)
        else:
            patches = self._clip(torch.from_numpy(pixels).permute(0, 3, 1, 2))["pixel_values_videos"]
        return patches

    def _clip(self, frames: torch.Tensor) -> Any:
        return self._video(videos=[frames], do_sample_frames=False, return_tensors="pt")

    def _group_stills(self, pixels: Pixels) -> torch.Tensor:
        """Video patches from the image processor.

        That one repeats a still along the temporal patch: one copy of each frame is taken, and neighbouring frames
        are joined.
        """
        per_group, area = self.frames_per_group, self._image.patch_size**2
        values: torch.Tensor = self._stills(list(pad_to_multiple(pixels, per_group)))["pixel_values"]
        if per_group == 1:
            return values
        stills = values.view(math.ceil(len(pixels) / per_group), per_group, -1, 3, per_group, area)
        return stills[:, :, :, :, 0].permute(0, 2, 3, 1, 4).reshape(-1, 3 * per_group * area)

    def _stills(self, images: list[Pixels]) -> Any:
        return self._image(images=images, **LAYOUT)
