"""Qwen2-VL and Qwen2.5-VL: GQA, M-RoPE over three axes, ChatML turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kamera_agent.chunk import Chunk, ChunkKind
from kamera_agent.runtime.families.base import Family, Processors, Run
from kamera_agent.runtime.families.qwen_patches import Grid, QwenPatchifier
from kamera_agent.vision.frames import DEFAULT_FPS, Frames
from kamera_agent.vision.image import Pixels

IMAGE, VIDEO = 1, 2


class Qwen2VL(Family):
    """Qwen2-VL, Qwen2.5-VL and what was made of them, as UI-TARS (arXiv 2409.12191, 2502.13923)."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
    num_axes = 3

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        self._patchifier = QwenPatchifier(processors)

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        try:
            return super().load_processor(model_id, revision)
        except ImportError:  # The video processor needs torchvision; images do without.
            tokenizer = AutoTokenizer.from_pretrained(model_id, revision=revision)
            image_processor: Any = Qwen2VLImageProcessorPil
            return Processors(tokenizer, image_processor.from_pretrained(model_id, revision=revision), None)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.model.config.image_token_id, self.model.config.video_token_id})

    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        grid = self._patchifier.image_grid(*pixels.shape[:2])
        token_ids = self._token_ids(self.model.config.image_token_id, grid)
        return self.new_chunk("image", pixels, namespace, token_ids, self._offsets(token_ids, "image", grid), grid=grid)

    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        num_frames, per_group = len(frames.timestamps), self._patchifier.frames_per_group
        grid = self._patchifier.frames_grid(*frames.pixels.shape[:3])
        seconds = frames.timestamps[-1] - frames.timestamps[0]
        seconds_per_grid = per_group * (seconds / (num_frames - 1) if num_frames > 1 else 1 / DEFAULT_FPS)
        token_ids = self._token_ids(self.model.config.video_token_id, grid)
        return self.new_chunk(
            "frames",
            frames.pixels,
            namespace,
            token_ids,
            self._offsets(token_ids, "frames", grid, seconds_per_grid),
            timestamps=frames.timestamps,
            grid=grid,
            seconds_per_grid=seconds_per_grid,
        )

    def _token_ids(self, pad: int, grid: Grid) -> tuple[int, ...]:
        config = self.model.config
        num_pads = math.prod(grid) // self.processors.image_processor.merge_size**2
        return (config.vision_start_token_id, *[pad] * num_pads, config.vision_end_token_id)

    def _offsets(
        self, token_ids: Sequence[int], kind: ChunkKind, grid: Grid, seconds_per_grid: float | None = None
    ) -> torch.Tensor:
        """Positions [3, T] of a chunk that starts at 0, by the model's own rule."""
        inputs = torch.tensor([token_ids])
        types = torch.tensor([self._token_types(token_ids)])
        which = "image" if kind == "image" else "video"
        extras = {f"{which}_grid_thw": torch.tensor([grid])}
        if seconds_per_grid is not None:
            extras["second_per_grid_ts"] = torch.tensor([seconds_per_grid])
        positions, _ = self.model.model.get_rope_index(inputs, mm_token_type_ids=types, **extras)
        offsets: torch.Tensor = positions[:, 0]
        return offsets

    def _token_types(self, token_ids: Sequence[int]) -> list[int]:
        types = {self.model.config.image_token_id: IMAGE, self.model.config.video_token_id: VIDEO}
        return [types.get(token, 0) for token in token_ids]

    def encode(self, chunk: Chunk) -> torch.Tensor:
        pixel_values = self._patchifier.patches(chunk).to(self.model.device)
        grid = torch.tensor([chunk.grid], device=self.model.device)
        encoder = self.model.get_image_features if chunk.kind == "image" else self.model.get_video_features
        features: torch.Tensor = encoder(pixel_values, grid, return_dict=True).pooler_output[0]
        return features.to(self.decoder.kv_shape.dtype)

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        token_ids = [token for run in runs for token in run.token_ids]
        device = self.model.device
        inputs: dict[str, torch.Tensor] = {}
        for kind, values, grids in (
            ("image", "pixel_values", "image"),
            ("frames", "pixel_values_videos", "video"),
        ):
            chunks = [run for run in runs if isinstance(run, Chunk) and run.kind == kind]
            if chunks:
                inputs[values] = torch.cat([self._patchifier.patches(chunk).to(self.model.device) for chunk in chunks])
                inputs[f"{grids}_grid_thw"] = torch.tensor([chunk.grid for chunk in chunks], device=device)
        seconds = [run.seconds_per_grid for run in runs if isinstance(run, Chunk) and run.seconds_per_grid]
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds, device=device)
        output = self.model(
            input_ids=torch.tensor([token_ids], device=device),
            mm_token_type_ids=torch.tensor([self._token_types(token_ids)], device=device),
            use_cache=False,
            logits_to_keep=1,
            **inputs,
        )
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits
