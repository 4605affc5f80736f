"""The reference: the same conversation through plain Hugging Face, written down by hand.

Nothing of the runtime is used here: the prompt is a string, positions are the model's own, pixels go through the
image processor, and there is one forward pass over everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel, apply_rotary_pos_emb

SYSTEM = "You are a helpful assistant."
# transformers 5.24 gave it another name.
CACHE_ARGUMENT = "cache" if "cache" in signature(Qwen2_5_VLTextModel.forward).parameters else "past_key_values"


@dataclass
class Frames:
    pixels: list[np.ndarray]
    seconds_per_frame: float


@dataclass
class Conversation:
    """Turns of (role, contents); a content is a str, a tuple of token ids, an image [H, W, 3] or Frames."""

    model: Any
    processor: Any
    turns: list[tuple[str, list[Any]]] = field(default_factory=list)
    system: str = SYSTEM

    def say(self, role: str, *contents: Any) -> "Conversation":
        self.turns.append((role, list(contents)))
        return self

    def inputs(self) -> dict[str, Any]:
        ids = self._ids(f"<|im_start|>system\n{self.system}<|im_end|>\n")
        images, clips, seconds = [], [], []
        for role, contents in self.turns:
            ids += self._ids(f"<|im_start|>{role}\n")
            for content in contents:
                if isinstance(content, tuple):
                    ids += content
                elif isinstance(content, str):
                    ids += self._ids(content)
                elif isinstance(content, Frames):
                    clips.append(video_patches(self.processor.image_processor, content.pixels))
                    seconds.append(2 * content.seconds_per_frame)
                    ids += self._ids(f"<|vision_start|>{'<|video_pad|>' * num_pads(clips[-1][1])}<|vision_end|>")
                else:
                    images.append(image_patches(self.processor.image_processor, content))
                    ids += self._ids(f"<|vision_start|>{'<|image_pad|>' * num_pads(images[-1][1])}<|vision_end|>")
            ids += self._ids("<|im_end|>\n")
        return self._join(ids + self._ids("<|im_start|>assistant\n"), images, clips, seconds)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _join(self, token_ids: Any, images: list[Any], clips: list[Any], seconds: list[float]) -> dict[str, Any]:
        ids = torch.tensor([token_ids])
        config = self.model.config
        types = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        inputs = {"input_ids": ids, "mm_token_type_ids": types, "attention_mask": torch.ones_like(ids)}
        if images:
            inputs["pixel_values"] = torch.cat([values for values, _ in images])
            inputs["image_grid_thw"] = torch.tensor([grid for _, grid in images])
        if clips:
            inputs["pixel_values_videos"] = torch.cat([values for values, _ in clips])
            inputs["video_grid_thw"] = torch.tensor([grid for _, grid in clips])
            if config.model_type == "qwen2_5_vl":
                inputs["second_per_grid_ts"] = torch.tensor(seconds)
        return inputs

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Next-token logits [vocab] by one full prefill."""
        self.model.model.rope_deltas = None
        return self.model(**self.inputs(), use_cache=False).logits[0, -1].float()

    @torch.no_grad()
    def prefill(self) -> DynamicCache:
        """The cache after one full prefill."""
        self.model.model.rope_deltas = None
        cache = DynamicCache()
        self.model(**self.inputs(), **{CACHE_ARGUMENT: cache})
        return cache

    @torch.no_grad()
    def generate(self, max_new_tokens: int) -> str:
        """The greedy reply of Hugging Face's own generate()."""
        self.model.model.rope_deltas = None
        inputs = self.inputs()
        pads = [self.model.config.image_token_id, self.model.config.video_token_id]
        output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, suppress_tokens=pads)
        return self.processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def num_pads(grid: Sequence[int]) -> int:
    return grid[0] * grid[1] * grid[2] // 4


def image_patches(image_processor: Any, image: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    batch = image_processor(images=[image], return_tensors="pt")
    return batch["pixel_values"], batch["image_grid_thw"][0].tolist()


def video_patches(image_processor: Any, frames: list[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
    """Pairs of frames by hand: the image processor doubles each frame; the second of a pair takes the second copy."""
    frames = frames + frames[-1:] * (len(frames) % 2)
    patch = image_processor.patch_size
    groups = []
    for first, second in zip(frames[::2], frames[1::2], strict=True):
        patches, grid = image_patches(image_processor, first)
        joined = patches.clone().view(len(patches), 3, 2, patch, patch)
        joined[:, :, 1] = image_patches(image_processor, second)[0].view(len(patches), 3, 2, patch, patch)[:, :, 1]
        groups.append(joined.view(len(patches), -1))
    return torch.cat(groups), [len(groups), *grid[1:]]


@torch.no_grad()
def positions_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Positions [3, T] that the model itself gives a whole prompt."""
    wanted = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    extras = {name: inputs[name] for name in wanted if name in inputs}
    ids = inputs["input_ids"]
    if not extras:
        return torch.arange(ids.shape[1]).expand(3, -1)
    return model.model.get_rope_index(ids, mm_token_type_ids=inputs["mm_token_type_ids"], **extras)[0][:, 0]


@torch.no_grad()
def turn_keys(model: Any, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Keys [..., T, D] before RoPE, turned to positions [3, T] by the model's own function."""
    cos, sin = model.model.language_model.rotary_emb(keys, positions[:, None])
    flat = keys.reshape(1, -1, *keys.shape[-2:])
    return apply_rotary_pos_emb(flat, flat, cos, sin)[1].view_as(keys)


@torch.no_grad()
def logits_over(
    model: Any, keys: torch.Tensor, values: torch.Tensor, token_ids: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Next-token logits [vocab] of new tokens over a DynamicCache that holds keys and values [L, H, P, D], turned
    already. token_ids: [Q]. positions: [3, Q]."""
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        cache.update(key[None], value[None], layer)
    text = model.model.language_model
    hidden = text(
        inputs_embeds=text.embed_tokens(token_ids)[None],
        position_ids=positions[:, None],
        **{CACHE_ARGUMENT: cache},
    )
    return model.lm_head(hidden.last_hidden_state[0, -1]).float()
