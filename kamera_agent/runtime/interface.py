"""Our attention in the place of a Hugging Face model's own, for single forward passes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kamera_agent.runtime.attention import attend
from kamera_agent.runtime.families.decoder import ATTENDING, Decoder
from kamera_agent.runtime.families.refusals import LENT
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.masks import make_masks
from kamera_agent.runtime.sight import Sight
from kamera_agent.runtime.slot_cache import Queries

REPLACED = "sdpa"
DEVICES = ("cpu", "cuda")
# Options that some models pass to their attention, and that ours does not have.
OPTIONS = ("position_bias", "s_aux", "softcap")

Attention = Callable[..., tuple[torch.Tensor, None]]


class _Current(threading.local):
    """What computes attention in this thread's forward pass; None: the model's own.

    It is set and cleared by assignment, which an interrupt cannot split.
    """

    attention: Attention | None = None


current = _Current()


def _attention(*args: Any, **options: Any) -> tuple[torch.Tensor, None]:
    """Our attention in a pass of ours; in any other, such as that of another thread, the one that it replaces."""
    output, weights = (current.attention or sdpa_attention_forward)(*args, **options)
    return output, weights


class Interface:
    """Lends our attention to the text model of one engine, if that model calls its attention by name in every layer.

    Several engines may serve one model: the last one to end its pass gives the model its own attention back.
    """

    _lock = threading.Lock()
    # By the id of a configuration, those whose pass needs our name in it.
    _borrowers: ClassVar[defaultdict[int, set[int]]] = defaultdict(set)

    def __init__(self, decoder: Decoder) -> None:
        AttentionInterface.register(LENT, _attention)
        AttentionMaskInterface.register(LENT, sdpa_mask)
        self._decoder = decoder
        configs = [decoder.config, *(getattr(layer, "config", None) for layer in decoder.attentions.values())]
        self._configs = list({id(config): config for config in configs if config is not None}.values())
        # The layers that called an attention which ours can replace, in the first pass; None before it.
        self._layers: set[int] | None = None

    def open(self, pool: KVPool, queries: Queries) -> Mapping[str, torch.Tensor]:
        """Let a forward pass in this thread attend to a pool, until close(). Returns what the model gets as masks.

        Where the attention is the model's own, these are additive masks [1, 1, Q, S] by kind of layer.
        """
        if not self._is_replaceable:
            return make_masks(self._decoder, pool, queries.index)
        if self._layers is None:
            self._layers = set()
            self._lend(_watching(self._layers))
        elif len(self._layers) == len(self._decoder.attentions):
            self._lend(_attending(Sight(self._decoder, pool, queries)))
            # Ours needs no mask. Without one the model would make it, and one of this size fails where it is used.
            none = torch.empty(1, 1, queries.num_tokens, 0, device=pool.device)
            return {kind: none for kind in self._decoder.kinds if kind in ATTENDING}
        return make_masks(self._decoder, pool, queries.index)

    @property
    def _is_replaceable(self) -> bool:
        names = {config._attn_implementation for config in self._configs}
        return names <= {LENT, REPLACED} and self._decoder.device.type in DEVICES

    def _lend(self, attention: Attention) -> None:
        current.attention = attention
        with self._lock:
            for config in self._configs:
                self._borrowers[id(config)].add(id(self))
                config._attn_implementation = LENT

    def close(self) -> None:
        """Give the model its own attention back."""
        with self._lock:
            for config in self._configs:
                self._borrowers[id(config)].discard(id(self))
                if config._attn_implementation == LENT and not self._borrowers[id(config)]:
                    config._attn_implementation = REPLACED


def _watching(layers: set[int]) -> Attention:
    """The model's own attention. Adds the number of each layer that calls it without an option that ours lacks."""

    def attention(module: Any, *args: Any, **options: Any) -> tuple[torch.Tensor, None]:
        if all(options.get(name) is None for name in OPTIONS):
            layers.add(module.layer_idx)
        output, weights = sdpa_attention_forward(module, *args, **options)
        return output, weights

    return attention


def _attending(sight: Sight) -> Attention:
    """Attention over the pool: [1, H, Q, D] and [1, Hk, S, D] to [1, Q, H, D]."""

    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        output = attend(query[0], key[0], value[0], sight.groups(module.layer_idx, query.device), scaling)
        return output.transpose(0, 1).contiguous()[None], None

    return attention
