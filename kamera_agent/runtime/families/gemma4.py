"""Gemma 4: layers of two shapes, shared KV in the small models, embeddings for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any

import torch

from kamera_agent.chunk import Chunk, Run
from kamera_agent.runtime.families.image_text import WrittenByRule, stills
from kamera_agent.runtime.families.per_layer import PerLayer
from kamera_agent.runtime.families.text_only import TextOnly, capped
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels

# The default of Gemma 4's video processor, which cannot be loaded without torchvision.
FRAME_TOKENS = 70


class Gemma4(PerLayer, WrittenByRule):
    """Gemma 4 with eyes.

    In the large models, the tokens of an image, or of a frame, see each other in sliding layers. A frame of a clip has
    fewer tokens than an image, after its time.
    """

    model_types = ("gemma4",)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.image_token_id, self.model.config.video_token_id})

    def expand(self, pixels: Pixels) -> str:
        return self._between_markers(self.image_token_id, self.image_inputs([pixels]))

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        frame = self._between_markers(self.model.config.video_token_id, self._frame_inputs([frames.pixels[0]]))
        clock = [divmod(int(seconds), 60) for seconds in frames.timestamps]
        return self.fill(" ".join(f"{minutes:02d}:{seconds:02d} {frame}" for minutes, seconds in clock))

    def _between_markers(self, placeholder_id: int, inputs: Mapping[str, Any]) -> str:
        config, text_of = self.model.config, self.processors.tokenizer.convert_ids_to_tokens
        tokens = text_of(placeholder_id) * int(inputs["num_soft_tokens_per_image"][0])
        return f"{text_of(config.boi_token_id)}{tokens}{text_of(config.eoi_token_id)}"

    def process(self, pixels: Pixels) -> Mapping[str, Any]:
        return super().process(pixels) if pixels.ndim == 3 else self._frame_inputs(list(pixels))

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        images = [chunk for chunk in chunks if chunk.kind == "image"]
        inputs = super().pixel_inputs(images) if images else {}
        if frames := [frame for chunk in chunks if chunk.kind == "frames" for frame in stills(chunk)]:
            batch = self._frame_inputs(frames)
            clips = {
                "pixel_values_videos": batch["pixel_values"],
                "video_position_ids": batch["image_position_ids"],
                "num_frames_per_video": torch.tensor([len(frames)], device=self.device),
            }
            if "num_frames_per_video" not in signature(self.model.forward).parameters:
                # Before transformers 5.24, clips have an axis of their own. All frames are given as those of one clip.
                clips = {name: values[None] for name, values in clips.items()}
            inputs |= clips
        return inputs

    def encoder_outputs(self, chunk: Chunk) -> Any:
        if chunk.kind == "image":
            return super().encoder_outputs(chunk)
        batch = self._frame_inputs(stills(chunk))
        # What the encoder of clips does, whose parameters differ between versions of transformers.
        encoder = self.model.model.get_image_features
        return encoder(batch["pixel_values"], batch["image_position_ids"], return_dict=True).pooler_output

    def _frame_inputs(self, frames: Sequence[Pixels]) -> dict[str, Any]:
        num_tokens = getattr(self.processors.video_processor, "max_soft_tokens", FRAME_TOKENS)
        return self.image_inputs(frames, max_soft_tokens=num_tokens)

    def ids_by_layer(self, run: Run) -> torch.Tensor:
        return super().ids_by_layer(run).masked_fill(self.placeholders(run), self.decoder.config.pad_token_id)

    def both_ways(self, run: Run) -> torch.Tensor | None:
        if not isinstance(run, Chunk) or self.decoder.config.use_bidirectional_attention != "vision":
            return None
        return self.placeholders(run)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return capped(super().logits(hidden), self.decoder.config)

    def reference_inputs(self, token_ids: torch.Tensor) -> dict[str, Any]:
        of_images, of_frames = token_ids == self.image_token_id, token_ids == self.model.config.video_token_id
        return {"mm_token_type_ids": of_images.long() + 2 * of_frames.long()}


class Gemma4Text(PerLayer, TextOnly):
    """The text model of Gemma 4 alone."""

    model_types = ("gemma4_text",)
