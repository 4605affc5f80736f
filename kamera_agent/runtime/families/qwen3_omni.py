"""Qwen3-Omni: its thinker, which reads images and writes text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from kamera_agent.errors import InputError
from kamera_agent.runtime.families.mrope import Raster
from kamera_agent.runtime.families.qwen2_5_omni import Qwen25Omni
from kamera_agent.runtime.families.qwen3_vl import Qwen3VL
from kamera_agent.vision.frames import Frames


class Qwen3Omni(Qwen25Omni, Qwen3VL):
    """The thinker of Qwen3-Omni, which reads images and writes text (arXiv 2509.17765).

    Its encoder is that of Qwen3-VL.
    """

    model_types = ("qwen3_omni_moe", "qwen3_omni_moe_thinker")
    auto_model = Qwen3OmniMoeThinkerForConditionalGeneration

    def frames_chunk(self, frames: Frames, namespace: str) -> NoReturn:
        raise InputError(
            f"Clips are not served for {type(self.model).__name__}: it gives frames positions between whole numbers. "
            "Add the frames as images."
        )

    def _find_offsets(self, token_ids: tuple[int, ...], raster: Raster) -> torch.Tensor:
        # Those of images are whole numbers, as floats.
        return super()._find_offsets(token_ids, raster).long()

    def _position_inputs(self, token_ids: Sequence[int], rasters: Sequence[Raster]) -> dict[str, torch.Tensor]:
        return super()._position_inputs(token_ids, rasters) | {"attention_mask": torch.ones(1, len(token_ids)).long()}
