"""The reference: a conversation through the real processor and plain Hugging Face, nothing of the runtime."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from huggingface import video_patches
from PIL import Image
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoMetadata


@dataclass
class Clip:
    """Frames [H, W, 3] at a steady rate from second 0."""

    frames: list[np.ndarray]
    fps: float

    @property
    def timestamps(self) -> list[float]:
        return [i / self.fps for i in range(len(self.frames))]


@dataclass
class Talk:
    """Turns of (role, parts); a part is a str, an image [H, W, 3] or a Clip. Adjacent texts of a turn are one."""

    model: Any
    processor: Any
    turns: list[tuple[str, list[Any]]] = field(default_factory=list)

    def say(self, role: str, *parts: Any) -> "Talk":
        self.turns.append((role, list(parts)))
        return self

    def inputs(self) -> dict[str, Any]:
        messages = [{"role": role, "content": [_part(part) for part in parts]} for role, parts in self.turns]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        parts = [part for _, parts in self.turns for part in parts]
        images = [part for part in parts if isinstance(part, np.ndarray)]
        call = {"images": images or None, "add_special_tokens": False, "return_tensors": "pt"}
        clips = [part for part in parts if isinstance(part, Clip)]
        if clips:
            call |= {"videos": [np.stack(clip.frames) for clip in clips], "videos_kwargs": {"fps": clips[0].fps}}
        # Before transformers 5.24 some ask their video processor about images.
        lacking = getattr(self.processor, "video_processor", self.processor) is None
        processor = with_video(self.processor, clips[0].fps if clips else 1.0) if lacking else self.processor
        batch = processor(text=[text], **call)
        return {name: self._moved(value) for name, value in batch.items()}

    def _moved(self, value: Any) -> Any:
        return value.to(self.model.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Next-token logits [vocab] by one full prefill."""
        return self.model(**self.inputs(), use_cache=False).logits[0, -1].float()

    @torch.no_grad()
    def generate(self, max_new_tokens: int, suppress: Sequence[int]) -> list[int]:
        """The greedy reply of Hugging Face's own generate()."""
        inputs = self.inputs()
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, suppress_tokens=list(suppress)
        )
        return output[0, inputs["input_ids"].shape[1] :].tolist()


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "video" if isinstance(part, Clip) else "image"}


def with_video(processor: Any, fps: float) -> Any:
    """A processor that has a video processor: frames are paired by hand, the rest is its own doing."""
    whole = copy.copy(processor)
    stand_in = next(stand_in for name, stand_in in STAND_INS.items() if hasattr(processor.image_processor, name))
    whole.video_processor = stand_in(processor.image_processor, fps)
    return whole


def metadata(videos: list[np.ndarray], fps: float) -> list[VideoMetadata]:
    return [VideoMetadata(len(video), fps, frames_indices=[*range(len(video))]) for video in videos]


class _Pairs:
    """Stands in for a video processor, as those need torchvision."""

    temporal_patch_size = 2
    valid_kwargs = VideosKwargs

    def __init__(self, image_processor: Any, fps: float) -> None:
        self.merge_size = image_processor.merge_size
        self._image_processor, self._fps = image_processor, fps

    def __call__(self, videos: list[np.ndarray], **options: Any) -> dict[str, Any]:
        pairs = [video_patches(self._image_processor, list(video)) for video in videos]
        return {
            "pixel_values_videos": torch.cat([values for values, _ in pairs]),
            "video_grid_thw": torch.tensor([grid for _, grid in pairs]),
            "video_metadata": metadata(videos, self._fps),
        }


class _Views:
    """The same where each frame becomes one square view."""

    valid_kwargs = VideosKwargs

    def __init__(self, image_processor: Any, fps: float) -> None:
        self._image_processor, self._fps = image_processor, fps

    def __call__(self, videos: list[np.ndarray], **options: Any) -> dict[str, Any]:
        pixels = torch.stack([torch.stack([self._view(frame) for frame in video]) for video in videos])
        name = "pixel_values" if hasattr(self._image_processor, "max_image_size") else "pixel_values_videos"
        return {name: pixels, "video_metadata": metadata(videos, self._fps)}

    def _view(self, frame: np.ndarray) -> torch.Tensor:
        picture = Image.fromarray(frame)
        for size in self._sizes(*picture.size):
            picture = picture.resize(size, self._image_processor.resample)
        mean, std = (np.array(getattr(self._image_processor, f"image_{name}")) for name in ("mean", "std"))
        return torch.from_numpy((np.asarray(picture) / 255 - mean) / std).permute(2, 0, 1).float()

    def _sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """SmolVLM resizes the longer side to that of a tile, the other one to an even number, and then to a square."""
        if not hasattr(self._image_processor, "max_image_size"):
            return [(self._image_processor.size["width"], self._image_processor.size["height"])]
        side = self._image_processor.max_image_size["longest_edge"]
        fitted = [side * length // max(width, height) for length in (width, height)]
        return [tuple(length + length % 2 for length in fitted), (side, side)]


class _Patches:
    """The same where a frame becomes patches, at most 70 x 9 of them, which are pooled by 3 x 3."""

    valid_kwargs = VideosKwargs
    max_soft_tokens, pool = 70, 3

    def __init__(self, image_processor: Any, fps: float) -> None:
        self._side, self._fps = image_processor.patch_size, fps

    def __call__(self, videos: list[np.ndarray], **options: Any) -> dict[str, Any]:
        frames = [self._cut(frame) for video in videos for frame in video]
        return {
            "pixel_values_videos": torch.stack([self._padded(patches, 0.0) for patches, _ in frames]),
            "video_position_ids": torch.stack([self._padded(places, -1) for _, places in frames]),
            "num_frames_per_video": torch.tensor([len(video) for video in videos]),
            "num_soft_tokens_per_video": [len(self._cut(video[0])[0]) // self.pool**2 for video in videos],
            "video_metadata": metadata(videos, self._fps),
        }

    def _padded(self, rows: torch.Tensor, value: float) -> torch.Tensor:
        missing = self.max_soft_tokens * self.pool**2 - len(rows)
        return torch.cat([rows, torch.full((missing, rows.shape[1]), value, dtype=rows.dtype)])

    def _cut(self, frame: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches [n, side * side * 3] of a frame, row by row, and their places (x, y) [n, 2]."""
        (height, width, _), unit = frame.shape, self._side * self.pool
        # The largest whole units whose area the budget allows, with the shape of the frame.
        scale = math.sqrt(self.max_soft_tokens * unit**2 / (height * width))
        down, across = (int(scale * length / unit) * self.pool for length in (height, width))
        picture = Image.fromarray(frame).resize((across * self._side, down * self._side), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture) / np.float32(255)
        places = [(x, y) for y in range(down) for x in range(across)]
        corners = [(y * self._side, x * self._side) for x, y in places]
        patches = [pixels[top : top + self._side, left : left + self._side].ravel() for top, left in corners]
        return torch.from_numpy(np.stack(patches)), torch.tensor(places)


# What an image processor has -> what stands in for the video processor beside it.
STAND_INS = {"merge_size": _Pairs, "pooling_kernel_size": _Patches, "size": _Views}
