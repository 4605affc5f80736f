"""Text models alone: how they make their keys is learned from what they do, whatever their type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.capture import capture_keys
from kamera_agent.runtime.families.decoder import NUM_DUMMIES, START, Decoder
from kamera_agent.runtime.families.text_parts import key_module
from kamera_agent.runtime.kernels.reference import Pairs, rotate
from kamera_agent.runtime.kv_pool import Heads, KVShape
from kamera_agent.runtime.slot_cache import cache_argument


class Turning(NamedTuple):
    """A way to turn keys: the components of a pair, and how to make the table of the rotary embedding's output."""

    pairs: Pairs
    spread: Callable[[torch.Tensor], torch.Tensor]


TURNINGS = (
    Turning("half", lambda table: table),
    Turning("interleaved", lambda table: table),
    # From a table with one number per pair, and from one in halves.
    Turning("half", lambda table: torch.cat([table, table], dim=-1)),
    Turning("interleaved", lambda table: table[..., : table.shape[-1] // 2].repeat_interleave(2, dim=-1)),
)


class Observed(NamedTuple):
    """Per layer, the output of the key module, and the keys and values [H, T, D] that the model cached."""

    raw: Sequence[torch.Tensor]
    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]


class LearnedDecoder(Decoder):
    """A decoder made of the usual parts, whose conventions are observed on dummy tokens.

    Raises UnsupportedModelError for a layer that does not cache keys of its own, or keys of another shape.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        observed = self._observe()
        keys, values = self._heads_of(observed)
        self.kv_shape = KVShape(len(observed.raw), keys, values, module.dtype, self.device)
        # Some models normalise keys head by head, after they were split into heads.
        self.keys_by_head = observed.raw[0].dim() == 4 and observed.raw[0].shape[1] == keys.num
        raw = [self.keys_of(output) for output in observed.raw]
        self.turned = [not torch.equal(*pair) for pair in zip(raw, observed.keys, strict=True)]
        self._spread = TURNINGS[0].spread
        turning = min(TURNINGS, key=lambda turning: self._error(turning, raw, observed.keys))
        self.pairs, self._spread = turning
        self.kv_shape = self.kv_shape._replace(pairs=self.pairs)

    @cached_property
    def key_modules(self) -> Sequence[nn.Module]:
        return [key_module(layer.self_attn) for layer in self.module.layers]

    def _every_table(self, like: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super()._every_table(like, where)
        return self._spread(cos), self._spread(sin)

    @torch.no_grad()
    def _observe(self) -> Observed:
        """Run dummy tokens through the model with a cache of its own."""
        raw: dict[int, torch.Tensor] = {}
        cache = DynamicCache()
        with capture_keys(self.key_modules, raw.__setitem__):
            self.run_dummies(self.module, use_cache=True, **{cache_argument(self.module): cache})
        cached: list[Any] = [layer for layer in cache.layers if isinstance(getattr(layer, "keys", None), torch.Tensor)]
        if not len(raw) == len(cached) == len(self.key_modules):
            raise UnsupportedModelError(
                f"{type(self.module).__name__} has {len(self.key_modules)} layers, of which {len(raw)} make keys and "
                f"{len(cached)} cache them. Use a model in which every layer has keys of its own."
            )
        return Observed(
            [raw[layer] for layer in range(len(raw))],
            [layer.keys[0] for layer in cached],
            [layer.values[0] for layer in cached],
        )

    def _heads_of(self, observed: Observed) -> tuple[Heads, Heads]:
        shapes = {(*keys.shape, *values.shape) for keys, values in zip(observed.keys, observed.values, strict=True)}
        if len(shapes) > 1:
            raise UnsupportedModelError(
                f"The layers of {type(self.module).__name__} cache keys and values of {len(shapes)} shapes. Use a "
                "model whose layers are alike."
            )
        keys, values = observed.keys[0], observed.values[0]
        return Heads(keys.shape[0], keys.shape[2]), Heads(values.shape[0], values.shape[2])

    def _error(self, turning: Turning, raw: Sequence[torch.Tensor], cached: Sequence[torch.Tensor]) -> float:
        """Relative error of keys turned in this way against the model's own, summed over the layers."""
        self._spread = turning.spread
        cos, sin = self.rope_tables(torch.arange(START, START + NUM_DUMMIES)[None])
        if cos.shape[-1] > self.kv_shape.keys.dim:
            return float("inf")
        total = 0.0
        for layer, (keys, expected) in enumerate(zip(raw, cached, strict=True)):
            turn = layer if len(cos) > 1 else 0
            turned = torch.empty_like(keys)
            rotate(keys, cos[turn], sin[turn], turned, turning.pairs)
            total += float((turned.float() - expected.float()).norm() / expected.float().norm())
        return total
