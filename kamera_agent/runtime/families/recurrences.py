"""Which text models have which recurrent layers."""

from __future__ import annotations

from kamera_agent.runtime.gated_delta import GatedDelta, InterleavedGatedDelta
from kamera_agent.runtime.recurrence import Recurrence
from kamera_agent.runtime.short_convolution import ShortConvolution

# By `config.model_type` of the text model.
RECURRENCES: dict[str, type[Recurrence]] = {
    "lfm2": ShortConvolution,
    "lfm2_moe": ShortConvolution,
    "lfm3": ShortConvolution,
    "qwen3_5_moe_text": GatedDelta,
    "qwen3_5_text": GatedDelta,
    "qwen3_next": InterleavedGatedDelta,
}
