"""The model under test, run by Hugging Face: every window is encoded and prefilled anew."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from examples.ui_agent.first_token import watch
from examples.ui_agent.turn import Turn
from kamera_agent.pocket.weights import WEIGHTS

IMAGE = "<|vision_start|>{}<|vision_end|>"
MAX_TOKENS = 4


class Plain:
    """An arm: generate() of a Qwen2.5-VL, without kamera_agent."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        """Generate from one user turn: the screenshots, then the question."""
        pads = [self._model.config.image_token_id, self._model.config.video_token_id]
        with watch(self._model) as first:
            inputs = self._inputs([Image.open(BytesIO(data)).convert("RGB") for data in screens], question)
            # The model keeps the offsets of the last prompt and would add them to the positions of this one.
            self._model.model.rope_deltas = None
            output = self._model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False, suppress_tokens=pads)
        num_tokens = inputs["input_ids"].shape[1]
        answer = self._tokenizer.decode(output[0, num_tokens:], skip_special_tokens=True)
        return Turn(answer.strip(), {"computed": num_tokens}, first.ms, first.logits)

    def _inputs(self, images: Sequence[Image.Image], question: str) -> dict[str, torch.Tensor]:
        batch = self._image_processor(images=list(images), return_tensors="pt")
        shown = "".join(IMAGE.format("<|image_pad|>" * int(grid.prod() // 4)) for grid in batch["image_grid_thw"])
        messages = [{"role": "user", "content": shown + question}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([self._tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        types = (ids == self._model.config.image_token_id).int()
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types, **batch}


def load_plain() -> Plain:
    """Load the pocket model with the ordinary classes of Hugging Face."""
    return Plain(
        Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS).eval(),
        PreTrainedTokenizerFast.from_pretrained(WEIGHTS),
        Qwen2VLImageProcessorPil.from_pretrained(WEIGHTS),
    )
