"""Idefics3 and SmolVLM: tiles named by row and column, and a view of the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from transformers.models.smolvlm import processing_smolvlm

from kamera_agent.chunk import Chunk
from kamera_agent.errors import ModelError
from kamera_agent.runtime.families.image_text import ImageText, WrittenByRule, stills
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels

# The functions of its processor; the class itself cannot be loaded without torchvision.
RULE: Any = processing_smolvlm


class Idefics3(ImageText):
    """Idefics3 (arXiv 2408.12637)."""

    model_types = ("idefics3",)

    def find_text_model(self) -> Any:
        return self.model.model.text_model


class SmolVLM(WrittenByRule):
    """SmolVLM and SmolVLM2 (arXiv 2504.05299).

    A frame of a clip is one view of the whole image, after its time.
    """

    model_types = ("smolvlm",)

    def find_text_model(self) -> Any:
        return self.model.model.text_model

    def expand(self, pixels: Pixels) -> str:
        batch = self.image_inputs([pixels], return_row_col_info=True)
        return self._tiles(batch["rows"][0][0], batch["cols"][0][0])

    def _tiles(self, num_rows: int, num_columns: int) -> str:
        tokenizer = self.processors.tokenizer
        text: str = RULE.get_image_prompt_string(
            num_rows,
            num_columns,
            self.model.model.image_seq_len,
            fake_token_around_image=getattr(tokenizer, "fake_image_token", "<fake_token_around_image>"),
            image_token=self.image_token,
            global_image_token=getattr(tokenizer, "global_image_token", "<global-img>"),
        )
        return text

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        if RULE.num2words is None:
            raise ModelError("SmolVLM writes the number of frames in words: pip install num2words.")
        seconds = [int(time) for time in frames.timestamps]
        count, duration = RULE.num2words(len(seconds)), str(timedelta(seconds=seconds[-1]))
        lines = [
            RULE.FRAME_TIMESTAMP_MESSAGE.format(timestamp=f"{time // 60:02d}:{time % 60:02d}") + self._tiles(0, 0)
            for time in seconds
        ]
        intro = RULE.DEFAULT_VIDEO_INTRO.format(frame_count=count, video_duration=duration)
        return self.fill(intro + "".join(lines) + RULE.DEFAULT_MEDIA_OUTTRO)

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        views = [self.image_inputs(stills(chunk), **self._options(chunk)) for chunk in chunks]
        # All views are squares of one size, so they can be joined: [1, views, ...].
        return {name: torch.cat([view[name] for view in views], dim=1) for name in views[0]}

    def _options(self, chunk: Chunk) -> Mapping[str, Any]:
        if chunk.kind == "image":
            return {}
        return {"do_image_splitting": False, "size": self.processors.image_processor.max_image_size}
