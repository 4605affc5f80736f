"""The grid of a clip, against that of the patches themselves."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from kamera_agent.errors import VideoError
from kamera_agent.pocket.model import build_processor
from kamera_agent.runtime.families.patches import Patchifier
from kamera_agent.runtime.families.processors import Processors


class Video:
    """Like the video processors of Qwen3-VL: the more frames, the smaller each. Notes which devices frames were on."""

    temporal_patch_size = 2

    def __init__(self) -> None:
        self.devices: list[str] = []

    def __call__(self, videos: list[torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
        frames = videos[0]
        self.devices.append(frames.device.type)
        if len(frames) < self.temporal_patch_size:
            raise ValueError("too few frames")
        side = 14 * math.ceil(12 / len(frames))
        resized = torch.nn.functional.interpolate(frames.float(), (side, 2 * side))
        time, height, width = math.ceil(len(frames) / 2), side // 14, 2 * side // 14
        patches = resized.new_zeros(time * height * width, 2 * 3 * 14 * 14)
        return {"pixel_values_videos": patches, "video_grid_thw": torch.tensor([[time, height, width]])}


def patchifier(video: Video | None) -> Patchifier:
    return Patchifier(Processors(None, build_processor().image_processor, video))


@pytest.mark.parametrize("video", [None, Video()], ids=["stills", "video processor"])
@pytest.mark.parametrize("shape", [(2, 28, 56, 3), (5, 61, 100, 3), (12, 100, 61, 3)])
def test_grid_of_a_clip_is_that_of_its_patches(video: Video | None, shape: tuple[int, ...]) -> None:
    patches = patchifier(video)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    time, height, width = patches.grid(pixels)
    assert len(patches.patches(pixels)) == time * height * width
    assert time == math.ceil(shape[0] / 2)


def test_a_video_processor_computes_the_grid_without_frames() -> None:
    video = Video()
    patches = patchifier(video)
    pixels = np.zeros((6, 28, 28, 3), np.uint8)
    assert patches.grid(pixels) == (3, 2, 4)
    assert video.devices == ["meta"]
    with pytest.raises(VideoError, match="too few frames"):
        patches.grid(pixels[:1])
