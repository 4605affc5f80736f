"""The reference: messages through plain Hugging Face, by one full prefill, and what a prefix cache keeps of them."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from blake3 import blake3
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.serve.clients import Messages

PAD = "<|image_pad|>"
# A token of a text, or an image and the number of one of its tokens.
Key = int | tuple[str, int]


class Answer(NamedTuple):
    """A greedy answer, and what it was computed from: the tokens of the prompt and of the answer, in order."""

    text: str
    prompt: list[Key]
    said: list[Key]


class Plain:
    """generate() of a Qwen2.5-VL checkpoint, without kamera_agent."""

    def __init__(self, folder: Path) -> None:
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._images = Qwen2VLImageProcessorPil.from_pretrained(folder)

    def answer(self, messages: Messages, max_tokens: int) -> Answer:
        """The answer to messages with images as data URLs."""
        urls = [part["image_url"]["url"] for part in _parts(messages) if part["type"] == "image_url"]
        batch = dict(self._images(images=[_decode(url) for url in urls], return_tensors="pt"))
        sizes = [int(grid.prod()) // 4 for grid in batch["image_grid_thw"]]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        left = iter(sizes)
        prompt = re.sub(re.escape(PAD), lambda _: PAD * next(left), prompt)
        ids = torch.tensor([self._tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        config = self._model.config
        # The model keeps the offsets of the last prompt and would add them to the positions of this one.
        self._model.model.rope_deltas = None
        with torch.no_grad():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == config.image_token_id).int(),
                max_new_tokens=max_tokens,
                do_sample=False,
                suppress_tokens=[config.image_token_id, config.video_token_id],
                **batch,
            )
        said = output[0, ids.shape[1] :].tolist()
        digests = [
            (blake3(url.encode()).hexdigest(16), index)
            for url, size in zip(urls, sizes, strict=True)
            for index in range(size)
        ]
        pads = iter(digests)
        keys: list[Key] = [next(pads) if token == config.image_token_id else token for token in ids[0].tolist()]
        return Answer(self._tokenizer.decode(said, skip_special_tokens=True), keys, said)


class PrefixCache:
    """Keeps every prompt and answer for ever, and the longest beginning that one of them has in common with the next.

    So much is the most that any prefix cache can keep. It computes the last token at least.
    """

    def __init__(self) -> None:
        self._known: list[list[Key]] = []

    def num_computed(self, answer: Answer) -> int:
        """Tokens of the prompt of an answer that are computed for it. The cache then knows both."""
        kept = max((_num_common(known, answer.prompt) for known in self._known), default=0)
        self._known.append(answer.prompt + answer.said)
        return len(answer.prompt) - min(kept, len(answer.prompt) - 1)


def _num_common(one: Sequence[Key], other: Sequence[Key]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _parts(messages: Messages) -> list[dict[str, Any]]:
    return [part for message in messages if isinstance(message["content"], list) for part in message["content"]]


def _digest(url: str) -> str:
    return blake3(url.encode()).hexdigest(16)


def _decode(url: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
