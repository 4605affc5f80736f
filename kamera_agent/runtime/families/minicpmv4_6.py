"""MiniCPM-V 4.6: a view of the whole image and slices of it, over Qwen3.5."""

from __future__ import annotations

from kamera_agent.runtime.families.image_text import WrittenByRule
from kamera_agent.vision.image import Pixels


class MiniCpmV46(WrittenByRule):
    """MiniCPM-V 4.6. A clip is its frames as images in a row.

    The processor writes the number of each image before it. A chunk cannot contain that number, because it may be
    moved; write it into a text where it matters.
    """

    model_types = ("minicpmv4_6",)

    def expand(self, pixels: Pixels) -> str:
        inputs = self.image_inputs([pixels])
        per_token = 4 if self.processors.image_processor.downsample_mode == "4x" else 16
        view, *slices = (self.image_token * (int(size.prod()) // per_token) for size in inputs["target_sizes"])
        words, (_, num_columns) = self.processors.tokenizer, inputs["grids"][0]
        cut = [f"{words.slice_start_token}{tokens}{words.slice_end_token}" for tokens in slices]
        rows = ["".join(cut[start : start + num_columns]) for start in range(0, len(cut), num_columns or 1)]
        return f"{words.image_start_token}{view}{words.image_end_token}" + "\n".join(rows)
