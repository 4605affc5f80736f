"""Baselines: plain Hugging Face forward passes that use nothing of the runtime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from kamera_agent.runtime.slot_cache import cache_argument

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

Figures = dict[str, float]

SYSTEM = "You are a helpful assistant."


class Prompt:
    """One user turn of images and a question in the Qwen-VL chat format, as tokens and positions.

    token_ids: [T]. positions: [3, T], computed by the model. first_image: number of tokens before the first image.
    """

    def __init__(self, model: Any, processor: Any, images: Sequence[Pixels], question: str, num_more: int = 0) -> None:
        """num_more: tokens of a text before the images."""
        self.model, self.processor, self.images = model, processor, list(images)
        batch = processor.image_processor(images=self.images, return_tensors="pt")
        self.grids = batch["image_grid_thw"].to(model.device)
        head = self._ids(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        head += self._ids("a")[:1] * num_more
        body = [
            token
            for grid in self.grids.tolist()
            for token in self._ids(f"<|vision_start|>{'<|image_pad|>' * (grid[1] * grid[2] // 4)}<|vision_end|>")
        ]
        tail = self._ids(f"{question}<|im_end|>\n<|im_start|>assistant\n")
        self.first_image, self._num_tail = len(head), len(tail)
        self.token_ids = torch.tensor([*head, *body, *tail], device=model.device)
        self.types = (self.token_ids == model.config.image_token_id).int()
        self.positions = model.model.get_rope_index(
            self.token_ids[None], mm_token_type_ids=self.types[None], image_grid_thw=self.grids
        )[0][:, 0]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def tail_start(self, num_images: int) -> int:
        """Index of the first token of the last num_images images."""
        images = self.grids[len(self.images) - num_images :]
        tokens = sum(int(grid.prod()) // 4 + 2 for grid in images)
        return len(self) - self._num_tail - tokens

    def __len__(self) -> int:
        return len(self.token_ids)

    def patches(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Output of the image processor [patches, C·t·p·p] for images."""
        values: torch.Tensor = self.processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return values.to(self.model.device)

    @torch.no_grad()
    def full_prefill(self) -> DynamicCache:
        """Run preprocessing, vision encoder and one forward pass to the next-token logits. Returns the KV."""
        cache = DynamicCache()
        self.model.model.rope_deltas = None
        logits = self.model(
            input_ids=self.token_ids[None],
            mm_token_type_ids=self.types[None],
            pixel_values=self.patches(self.images),
            image_grid_thw=self.grids,
            **{cache_argument(self.model): cache},
            logits_to_keep=1,
        ).logits
        int(logits[0, -1].argmax())
        return cache

    @torch.no_grad()
    def features(self, index: int, patches: torch.Tensor | None = None) -> torch.Tensor:
        """Encoder output [N, hidden] of one image. patches: its output of patches(); None computes them."""
        values = self.patches([self.images[index]]) if patches is None else patches
        output: torch.Tensor = self.model.get_image_features(
            values, self.grids[index : index + 1], return_dict=True
        ).pooler_output[0]
        return output

    @torch.no_grad()
    def forward_tail(self, cache: DynamicCache, start: int, features: Sequence[torch.Tensor]) -> None:
        """Run the tokens from start on over a cache of those before it, to the next-token logits. Extends the cache.

        features: encoder outputs of the images after start, in order.
        """
        text = self.model.model.language_model
        embeds = text.embed_tokens(self.token_ids[start:])
        if features:
            embeds[self.types[start:].bool()] = torch.cat(list(features))
        hidden = text(
            inputs_embeds=embeds[None], position_ids=self.positions[:, None, start:], **{cache_argument(text): cache}
        )
        int(self.model.lm_head(hidden.last_hidden_state[0, -1]).argmax())


def blank_cache(model: Any, num_tokens: int) -> DynamicCache:
    """A cache of tokens whose keys and values are zeros: a forward pass over it takes as long as over any other."""
    text = model.model.language_model
    config = text.config
    size = 1, config.num_key_value_heads, num_tokens, config.hidden_size // config.num_attention_heads
    cache = DynamicCache()
    for index in range(config.num_hidden_layers):
        keys, values = (torch.zeros(size, dtype=text.dtype, device=text.device) for _ in range(2))
        cache.update(keys, values, index)
    return cache


def head_of(cache: DynamicCache, num_tokens: int) -> DynamicCache:
    """A copy of the first num_tokens tokens of a cache."""
    head = DynamicCache()
    for index, layer in enumerate(cache.layers):
        head.update(layer.keys[:, :, :num_tokens].clone(), layer.values[:, :, :num_tokens].clone(), index)
    return head


class Baselines:
    """The baselines over one prompt, whose last image is new.

    Its first image differs from that of the window before, so a prefix cache keeps no image. Full prefill and prefix
    cache therefore do the same work after every edit, and are measured once.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        # Not timed: the other baselines need the cache, and a full prefill is not always measured first.
        self._cache = prompt.full_prefill()

    def figures(self, full_first: bool) -> Figures:
        """Milliseconds of a full prefill and of a prefix cache, and the tokens of the prompt."""
        ways = {"full": self._full_ms, "prefix": self._prefix_ms}
        order = ("full", "prefix") if full_first else ("prefix", "full")
        return {way: ways[way]() for way in order} | {"tokens_full": len(self._prompt)}

    def _full_ms(self) -> float:
        return timed_ms(self._prompt.full_prefill)[0]

    def _prefix_ms(self) -> float:
        prompt, last = self._prompt, len(self._prompt.images) - 1
        known = [prompt.features(index) for index in range(last)]
        head = head_of(self._cache, prompt.first_image)
        return timed_ms(lambda: prompt.forward_tail(head, prompt.first_image, [*known, prompt.features(last)]))[0]

    def num_bare(self, num_new: int) -> int:
        """Tokens of the last num_new images and of the question."""
        return len(self._prompt) - self._prompt.tail_start(num_new)

    def bare_ms(self, num_new: int) -> float:
        """Milliseconds of the forward pass of just these tokens, with the encoder and without preprocessing."""
        prompt = self._prompt
        new = range(len(prompt.images) - num_new, len(prompt.images))
        patches = [prompt.patches([prompt.images[index]]) for index in new]
        start = prompt.tail_start(num_new)
        head = head_of(self._cache, start)

        def run() -> None:
            features = [prompt.features(index, values) for index, values in zip(new, patches, strict=True)]
            prompt.forward_tail(head, start, features)

        return timed_ms(run)[0]


def timed_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock milliseconds of a call, and its result. Waits for the GPU before and after the call."""
    _finish()
    start = perf_counter()
    result = work()
    _finish()
    return 1e3 * (perf_counter() - start), result


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(figures: Sequence[Figures], upper: str, lower: str) -> float:
    """The median over rounds of a ratio within each round."""
    return round(statistics.median(ms[upper] / ms[lower] for ms in figures), 3)


def medians(figures: Sequence[Figures], ways: Sequence[str]) -> dict[str, Any]:
    """Medians over rounds, for one event: times in ms, and ratios within each round."""
    return {
        "ttft_ratio_full": median_ratio(figures, "full", "ours"),
        "ttft_ratio_prefix": median_ratio(figures, "prefix", "ours"),
        "overhead": median_ratio(figures, "ours", "bare"),
        "tokens_computed": int(figures[0]["tokens_computed"]),
        "tokens_full": int(figures[0]["tokens_full"]),
        **{f"{way}_ms": round(statistics.median(ms[way] for ms in figures), 2) for way in ways},
    }
