"""ERNIE 4.5 VL: experts of their own for what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from kamera_agent.chunk import Run
from kamera_agent.errors import InputError
from kamera_agent.runtime.families.mrope import MRope, Raster
from kamera_agent.vision.frames import Frames


class Ernie45VL(MRope):
    """ERNIE 4.5 VL, of experts (arXiv 2503.04725).

    Tokens of an image, its marks among them, go to experts that no text sees. So the decoder inputs of a token carry
    one number more: whether it does. Its chat template counts pictures in the text before each, which a chunk that may
    lie anywhere cannot; say the number in a text where it matters.
    """

    model_types = ("ernie4_5_vl_moe",)

    @property
    def marks(self) -> tuple[int, int]:
        return self.model.config.image_start_token_id, self.model.config.image_end_token_id

    def frames_chunk(self, frames: Frames, namespace: str) -> NoReturn:
        raise InputError(
            f"{type(self.model).__name__} reads the second of a frame from the frame itself, where its processor draws "
            "it; clips are not served. Add the frames as images."
        )

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        embeds = super().embed(run, features)
        seen = torch.tensor(self._seen(run.token_ids), device=embeds.device, dtype=embeds.dtype)
        return torch.cat([embeds, seen[:, None]], dim=1)

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return embeds[..., :-1], {"moe_mm_token_type_ids": embeds[..., -1].long()}

    def _position_inputs(self, token_ids: Sequence[int], rasters: Sequence[Raster]) -> dict[str, torch.Tensor]:
        experts = {"moe_mm_token_type_ids": torch.tensor([self._seen(token_ids)])}
        return super()._position_inputs(token_ids, rasters) | experts

    def _seen(self, token_ids: Sequence[int]) -> list[int]:
        looking = {*self.placeholder_ids, *self.marks}
        return [int(token in looking) for token in token_ids]
