"""Text models alone: how they make their keys is learned from what they do, whatever their type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.bank import Heads, Tables
from kamera_agent.runtime.capture import capture_keys
from kamera_agent.runtime.families.decoder import NUM_DUMMIES, START, Decoder
from kamera_agent.runtime.families.text_parts import key_module
from kamera_agent.runtime.kernels.reference import Pairs, rotate
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
    """Of one layer, the output of the key module, and the keys and values [H, T, D] that the model cached."""

    raw: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


class LearnedDecoder(Decoder):
    """A decoder made of the usual parts, whose conventions are observed on dummy tokens.

    Raises UnsupportedModelError for a layer that does not cache keys of its own.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._observed = self._observe()
        observed = [*self._observed.values()]
        # Some models normalise keys head by head, after they were split into heads.
        self.keys_by_head = observed[0].raw.dim() == 4 and observed[0].raw.shape[1] == observed[0].keys.shape[0]
        raw = [self.keys_of(layer.raw, self.heads(number)[0]) for number, layer in self._observed.items()]
        self.turned = [not torch.equal(keys, layer.keys) for keys, layer in zip(raw, observed, strict=True)]
        self._spread = TURNINGS[0].spread
        self.pairs, self._spread = min(TURNINGS, key=lambda turning: self._error(turning, raw))

    def heads(self, layer: int) -> tuple[Heads, Heads]:
        keys, values = self._observed[layer].keys, self._observed[layer].values
        return Heads(keys.shape[0], keys.shape[2]), Heads(values.shape[0], values.shape[2])

    def key_module(self, attention: Any) -> nn.Module:
        return key_module(attention)

    def _table(self, like: torch.Tensor, where: torch.Tensor, *kind: str) -> Tables:
        cos, sin = super()._table(like, where, *kind)
        return self._spread(cos), self._spread(sin)

    @torch.no_grad()
    def _observe(self) -> dict[int, Observed]:
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
        return {number: Observed(raw[number], layer.keys[0], layer.values[0]) for number, layer in enumerate(cached)}

    def _error(self, turning: Turning, raw: Sequence[torch.Tensor]) -> float:
        """Relative error of keys [H, T, D] turned in this way against the model's own, summed over the layers."""
        self._spread = turning.spread
        tables = self.tables_by_kind(torch.arange(START, START + NUM_DUMMIES, device=self.device)[None])
        total = 0.0
        for number, keys in enumerate(raw):
            if not self.turned[number]:
                continue
            cos, sin = tables[self.kinds[number]]
            if cos.shape[-1] > keys.shape[-1]:
                return float("inf")
            turned, expected = torch.empty_like(keys), self._observed[number].keys.float()
            rotate(keys, cos[0], sin[0], turned, turning.pairs)
            total += float((turned.float() - expected).norm() / expected.norm())
        return total
