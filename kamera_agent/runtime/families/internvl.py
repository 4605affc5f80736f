"""InternVL: square tiles and a thumbnail, all with the same number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.image_text import WrittenByRule, stills
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class InternVL(WrittenByRule):
    """InternVL3 and 3.5 (arXiv 2504.10479, 2508.18265).

    A frame of a clip is one tile.
    """

    model_types = ("internvl",)

    def expand(self, pixels: Pixels) -> str:
        return self._between_markers(int(self.image_inputs([pixels], crop_to_patches=True)["num_patches"][0]))

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        lines = [f"Frame{number}: {self._between_markers(1)}" for number in range(1, len(frames.pixels) + 1)]
        return self.fill("\n".join(lines))

    def _between_markers(self, num_tiles: int) -> str:
        tokenizer, tokens = self.processors.tokenizer, self.image_token * self.model.config.image_seq_length * num_tiles
        return f"{tokenizer.start_image_token}{tokens}{tokenizer.end_image_token}"

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        tiles = [
            self.image_inputs(stills(chunk), crop_to_patches=chunk.kind == "image")["pixel_values"] for chunk in chunks
        ]
        return {"pixel_values": torch.cat(tiles)}
