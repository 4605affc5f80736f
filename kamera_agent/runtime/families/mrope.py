"""Backbones whose positions have three axes: time, height and width of a grid of patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from transformers.utils.import_utils import is_torchvision_available

from kamera_agent.chunk import Chunk, ChunkKind, Run
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.chunks import make_chunk
from kamera_agent.runtime.families.image_text import accepted, rows_of
from kamera_agent.runtime.families.patches import Grid, Patchifier
from kamera_agent.runtime.families.processors import Processors, load_parts
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.vision.frames import DEFAULT_FPS, Frames
from kamera_agent.vision.image import Pixels

IMAGE, VIDEO = 1, 2
# Grids whose positions are kept: the pictures of a window have few sizes, and all are looked at in every turn.
NUM_GRIDS = 64
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class Raster(NamedTuple):
    """The facts that positions follow from.

    grid: patches before merging (time, height, width). seconds: time between two steps of the grid; None for an image.
    """

    kind: ChunkKind
    grid: Grid
    seconds: float | None = None


class MRope(Family):
    """The design of Qwen2-VL (arXiv 2409.12191), which many models share.

    A chunk is a mark, one placeholder per group of patches, and a mark. Its positions are those that the model's own
    get_rope_index gives the chunk alone: when a chunk moves, all axes move by the same number.
    """

    num_axes = 3
    # Whether the frames of a clip are written and encoded as images, instead of with their own placeholders.
    clips_are_images: ClassVar[bool] = False

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        self._patchifier = Patchifier(processors)

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        if is_torchvision_available():
            return super().load_processor(model_id, revision)
        # The whole processor needs the video processor, which needs torchvision; images need neither.
        return load_parts(model_id, revision)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.model.config.image_token_id, self.model.config.video_token_id})

    @property
    def marks(self) -> tuple[int, int]:
        """Tokens that open and close an image."""
        return self.model.config.vision_start_token_id, self.model.config.vision_end_token_id

    @property
    def rope_index(self) -> Callable[..., Any]:
        """The model's own function for positions."""
        rule: Callable[..., Any] = self.model.model.get_rope_index
        return rule

    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        grid = self._patchifier.grid(pixels)
        token_ids = self.framed(self.model.config.image_token_id, grid)
        offsets = self._offsets(token_ids, Raster("image", grid))
        return make_chunk(self.identity, "image", pixels, namespace, token_ids, offsets, grid=grid)

    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        num_frames, per_group = len(frames.timestamps), self._patchifier.frames_per_group
        grid = self._patchifier.grid(frames.pixels)
        seconds = frames.timestamps[-1] - frames.timestamps[0]
        seconds_per_grid = per_group * (seconds / (num_frames - 1) if num_frames > 1 else 1 / DEFAULT_FPS)
        token_ids = self.clip(grid, [frames.timestamps[i : i + per_group] for i in range(0, num_frames, per_group)])
        return make_chunk(
            self.identity,
            "frames",
            frames.pixels,
            namespace,
            token_ids,
            self._offsets(token_ids, Raster("frames", grid, seconds_per_grid)),
            timestamps=frames.timestamps,
            grid=grid,
            seconds_per_grid=seconds_per_grid,
        )

    def framed(self, pad: int, grid: Grid) -> tuple[int, ...]:
        """Placeholders for a grid, between the marks."""
        opens, closes = self.marks
        return (opens, *[pad] * (math.prod(grid) // self._patchifier.pads_per_group), closes)

    def clip(self, grid: Grid, times: Sequence[Sequence[float]]) -> tuple[int, ...]:
        """Tokens of a clip. times: per step of the grid's time, the seconds of its frames."""
        return self.framed(self.model.config.video_token_id, grid)

    @cached_property
    def _offsets(self) -> Callable[[tuple[int, ...], Raster], torch.Tensor]:
        return lru_cache(NUM_GRIDS)(self._find_offsets)

    def _find_offsets(self, token_ids: tuple[int, ...], raster: Raster) -> torch.Tensor:
        """Positions [3, T] of a chunk that starts at 0."""
        inputs = {"input_ids": torch.tensor([token_ids])} | self._position_inputs(token_ids, [raster])
        positions, _ = self.rope_index(**accepted(self.rope_index, inputs))
        offsets: torch.Tensor = positions[:, 0]
        return offsets

    def _position_inputs(self, token_ids: Sequence[int], rasters: Sequence[Raster]) -> dict[str, torch.Tensor]:
        """Inputs for positions, under every name that one of the models has for them."""
        kinds = {self.model.config.image_token_id: IMAGE, self.model.config.video_token_id: VIDEO}
        inputs = {"mm_token_type_ids": torch.tensor([[kinds.get(token, 0) for token in token_ids]])}
        for sense in PIXELS:
            grids = [grid for raster in rasters if self._sense(raster.kind) == sense for grid in self._grids(raster)]
            if grids:
                inputs[f"{sense}_grid_thw"] = torch.tensor(grids)
        seconds = torch.tensor([raster.seconds for raster in rasters if raster.seconds is not None])
        if len(seconds):
            names = ("second_per_grid_ts", "second_per_grids", "video_second_per_grid")
            inputs |= dict.fromkeys(names, seconds)
        return inputs

    def _sense(self, kind: ChunkKind) -> str:
        return "video" if kind == "frames" and not self.clips_are_images else "image"

    def _grids(self, raster: Raster) -> list[Grid]:
        time, height, width = raster.grid
        return [(1, height, width)] * time if self.clips_are_images else [raster.grid]

    def process(self, pixels: Pixels) -> Mapping[str, Any]:
        return {"grid": self._patchifier.grid(pixels), "patches": self._patchifier.patches(pixels)}

    def tiles(self, chunk: Chunk) -> torch.Tensor | None:
        if chunk.kind != "image":
            return None
        # The patches of a tile follow each other, and so do the tiles of a row.
        patches = self._patchifier.patches(chunk.pixels)
        return patches.reshape(len(patches) // self._patchifier.pads_per_group, -1)

    def encode(self, chunk: Chunk) -> torch.Tensor:
        patches = sent(self._patchifier.patches(chunk.pixels), self.device)
        grids = torch.tensor(self._grids(Raster(chunk.kind, chunk.grid)), device=self.device)
        encoder = getattr(self.model, f"get_{self._sense(chunk.kind)}_features")
        return self.features(encoder(patches, grids, return_dict=True)).to(self.decoder.dtype)

    def features(self, outputs: Any) -> torch.Tensor:
        """Rows [num_placeholders, features], from the outputs of the model's encoder."""
        return rows_of(outputs.pooler_output)

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        token_ids = [token for run in runs for token in run.token_ids]
        chunks = [run for run in runs if isinstance(run, Chunk) and run.has_pixels]
        rasters = [Raster(chunk.kind, chunk.grid, chunk.seconds_per_grid) for chunk in chunks]
        inputs = {"input_ids": torch.tensor([token_ids]), "attention_mask": torch.ones(1, len(token_ids)).long()}
        inputs |= self._position_inputs(token_ids, rasters)
        for sense, name in PIXELS.items():
            patches = [self._patchifier.patches(chunk.pixels) for chunk in chunks if self._sense(chunk.kind) == sense]
            if patches:
                inputs[name] = torch.cat(patches)
        taken = {name: value.to(self.device) for name, value in accepted(self.model.forward, inputs).items()}
        last = accepted(self.model.forward, {"logits_to_keep": 1})
        logits: torch.Tensor = self.model(**taken, **last, use_cache=False).logits[0, -1].float()
        return logits
