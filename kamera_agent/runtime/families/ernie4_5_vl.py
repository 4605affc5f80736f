"""ERNIE 4.5 VL: images have experts of their own."""

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

    The tokens of an image, including its marks, go to experts that no text uses. So the decoder inputs of a token have
    one more number: whether it belongs to an image. The chat template writes the number of each picture before it. A
    chunk cannot contain that number, because it may be moved; write it into a text where it matters.
    """

    model_types = ("ernie4_5_vl_moe",)

    @property
    def marks(self) -> tuple[int, int]:
        return self.model.config.image_start_token_id, self.model.config.image_end_token_id

    def frames_chunk(self, frames: Frames, namespace: str) -> NoReturn:
        raise InputError(
            f"Clips are not served for {type(self.model).__name__}: its processor draws the time of a frame into the "
            "frame. Add the frames as images."
        )

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        embeds = super().embed(run, features)
        flags = torch.tensor(self._image_flags(run.token_ids), device=embeds.device, dtype=embeds.dtype)
        return torch.cat([embeds, flags[:, None]], dim=1)

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return embeds[..., :-1], {"moe_mm_token_type_ids": embeds[..., -1].long()}

    def _position_inputs(self, token_ids: Sequence[int], rasters: Sequence[Raster]) -> dict[str, torch.Tensor]:
        experts = {"moe_mm_token_type_ids": torch.tensor([self._image_flags(token_ids)])}
        return super()._position_inputs(token_ids, rasters) | experts

    def _image_flags(self, token_ids: Sequence[int]) -> list[int]:
        image_ids = {*self.placeholder_ids, *self.marks}
        return [int(token in image_ids) for token in token_ids]
