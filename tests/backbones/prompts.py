"""The reference: a conversation through the real processor and plain Hugging Face, nothing of the runtime."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from huggingface import video_patches
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
        processor = with_video(self.processor, clips[0].fps) if clips else self.processor
        if clips:
            call |= {"videos": [np.stack(clip.frames) for clip in clips], "videos_kwargs": {"fps": clips[0].fps}}
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
    whole.video_processor = _Pairs(processor.image_processor, fps)
    return whole


class _Pairs:
    """Stands in for a video processor, as those need torchvision."""

    temporal_patch_size = 2
    valid_kwargs = VideosKwargs

    def __init__(self, image_processor: Any, fps: float) -> None:
        self.merge_size = image_processor.merge_size
        self._image_processor, self._fps = image_processor, fps

    def __call__(self, videos: list[np.ndarray], **options: Any) -> dict[str, Any]:
        pairs = [video_patches(self._image_processor, list(video)) for video in videos]
        indices = [[*range(len(video))] for video in videos]
        return {
            "pixel_values_videos": torch.cat([values for values, _ in pairs]),
            "video_grid_thw": torch.tensor([grid for _, grid in pairs]),
            "video_metadata": [VideoMetadata(len(one), self._fps, frames_indices=one) for one in indices],
        }
