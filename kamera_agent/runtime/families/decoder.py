"""The text decoder of a backbone: its keys before RoPE, its tables, its masks, its forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import nn

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.bank import Heads, KVShape, Tables, banked
from kamera_agent.runtime.families.placement import device_of
from kamera_agent.runtime.families.recurrences import RECURRENCES
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.recurrence import Recurrence
from kamera_agent.runtime.slot_cache import SlotCache, cache_argument

# Dummy tokens that show how a model works: a number that is rarely one of heads, and their first position.
NUM_DUMMIES, START = 7, 3
# The smallest relative change of their hidden states that a window of half of them makes.
SLIDE_CHANGE = 0.02
FULL, SLIDING = "full_attention", "sliding_attention"
ATTENDING = (FULL, SLIDING)
RECURRENT = "a recurrent state, and what a span does to it is not known for this type"
INDEXED = "an index with its own keys, which no chunk keeps, selects what a query sees"
# Why a layer of another kind cannot be rebuilt from chunks. Before transformers 5.24 some kinds had other names.
REASONS = {
    "linear_attention": RECURRENT,
    "mamba": RECURRENT,
    "hybrid": RECURRENT,
    "conv": RECURRENT,
    "chunked_attention": "chunks of attention that begin at absolute positions; a moved span would leave its chunk",
    "indexed_attention": INDEXED,
    "deepseek_sparse_attention": INDEXED,
}


class Decoder:
    """A decoder that keeps one K and one V per key/value head: GQA and MHA.

    module: the Hugging Face text model, with `layers`, `rotary_emb`, input embeddings and `config`.
    device: of the embeddings; each layer may have one of its own.
    pairs, values_first: as of KVShape; the self-test at load proves the pairs.
    turned: per layer, whether it turns its keys; empty where all do.
    keys_by_head: whether key modules return [1, H, Q, D] instead of [1, Q, H, D].
    both_ways_kinds: kinds of layers in which the tokens that Family.both_ways marks see each other.
    Raises UnsupportedModelError for layers that cannot be rebuilt from chunks.
    """

    pairs: Pairs = "half"
    values_first: ClassVar[bool] = False
    turned: Sequence[bool] = ()
    keys_by_head: bool = False
    both_ways_kinds: ClassVar[tuple[str, ...]] = (FULL, SLIDING)

    def __init__(self, module: Any) -> None:
        self.module = module
        self.config = module.config
        self.device = device_of(module)
        check_kinds(self.kinds, self.config.model_type)
        devices = {str(device_of(layer)) for layer in self.module.layers}
        if len(devices) > 1 and not {*self.kinds} <= {*ATTENDING}:
            raise UnsupportedModelError(
                f"The layers are on {', '.join(sorted(devices))}, and states of recurrent layers are not folded across "
                "devices. Load the model on one device."
            )

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kind of attention per layer."""
        num_layers = int(self.config.num_hidden_layers)
        if listed := getattr(self.config, "layer_types", None):
            return tuple(listed)[:num_layers]
        window = getattr(self.config, "sliding_window", None)
        slides = window and getattr(self.config, "use_sliding_window", True) and self._slides()
        return (SLIDING if slides else FULL,) * num_layers

    @torch.no_grad()
    def _slides(self) -> bool:
        """Whether a sliding window changes what the model computes: many types have the setting and ignore it."""
        outputs = []
        for window in (NUM_DUMMIES // 2, NUM_DUMMIES + 1):
            # A shallow copy shares the layers; only the configuration, which masks are made by, is its own.
            module, config = copy(self.module), copy(self.config)
            module.config, config.sliding_window = config, window
            outputs.append(self.run_dummies(module, use_cache=False).float())
        short, long = outputs
        # Not equality: on a GPU, sums of experts may differ from run to run.
        return bool((short - long).norm() > SLIDE_CHANGE * long.norm())

    def run_dummies(self, module: Any, **options: Any) -> torch.Tensor:
        """Output [1, T, hidden] of the text model, or of a copy of it, for dummy tokens from position START on.

        Raises UnsupportedModelError where it needs more than that.
        """
        table = module.get_input_embeddings()
        # From all over the vocabulary: at its end there may be rows that are not used, and all alike.
        token_ids = torch.linspace(0, table.num_embeddings - 1, NUM_DUMMIES, device=self.device).long()
        positions = torch.arange(START, START + NUM_DUMMIES, device=self.device)
        try:
            output = module(inputs_embeds=table(token_ids)[None], position_ids=positions[None], **options)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"{type(module).__name__} does not run on embeddings, positions and a cache alone: {error!r}."
            ) from error
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    @property
    def window_tokens(self) -> int:
        """Number of tokens that a query of a sliding layer sees, including its own."""
        return int(self.config.sliding_window)

    @cached_property
    def dtype(self) -> torch.dtype:
        """That of the KV: of what layers put out. Quantised weights are of another."""
        token_ids = torch.zeros(1, dtype=torch.long, device=self.device)
        with torch.no_grad():
            dtype: torch.dtype = self.module.get_input_embeddings()(token_ids).dtype
        return dtype

    @cached_property
    def shapes(self) -> tuple[KVShape, ...]:
        """What the layers keep, bank by bank."""
        return banked(
            KVShape(
                (layer,),
                self.kinds[layer],
                *self.heads(layer),
                self.dtype,
                device_of(self.module.layers[layer]),
                self.pairs,
                self.values_first,
                self.window_tokens if self.kinds[layer] == SLIDING else None,
            )
            for layer in self.key_modules
        )

    def heads(self, layer: int) -> tuple[Heads, Heads]:
        """The heads of the keys and the values that a layer keeps."""
        config = self.config
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = Heads(getattr(config, "num_key_value_heads", None) or config.num_attention_heads, dim)
        return heads, heads

    @cached_property
    def recurrence(self) -> Recurrence | None:
        """The recurrent layers; None where there are none."""
        numbers = [number for number, kind in enumerate(self.kinds) if kind not in ATTENDING]
        if not numbers:
            return None
        return RECURRENCES[self.config.model_type]({number: self.module.layers[number] for number in numbers})

    def new_pool(self) -> KVPool:
        """An empty pool for one window."""
        return KVPool(self.shapes, self.recurrence)

    @property
    def token_bytes(self) -> int:
        """Bytes of the K and V of one token, over all layers."""
        return sum(shape.token_bytes for shape in self.shapes)

    def chunk_bytes(self, num_tokens: int) -> int:
        """Bytes of what all layers keep of a chunk."""
        recurrent_bytes = self.recurrence.num_bytes(num_tokens) if self.recurrence else 0
        return num_tokens * self.token_bytes + recurrent_bytes

    @property
    def attention(self) -> str:
        """GQA, MHA or MLA."""
        return "MHA" if self.shapes[0].keys.num == self.config.num_attention_heads else "GQA"

    @property
    def expanded_bytes(self) -> int:
        """Bytes of the K and V of one token in all heads that attention computes with."""
        return self.token_bytes

    @cached_property
    def attentions(self) -> Mapping[int, nn.Module]:
        """By layer that attends, the module that does."""
        layers = enumerate(zip(self.module.layers, self.kinds, strict=False))
        return {number: layer.self_attn for number, (layer, kind) in layers if kind in ATTENDING}

    @cached_property
    def key_modules(self) -> Mapping[int, nn.Module]:
        """By layer that keeps keys, the module whose output holds them before RoPE."""
        return {number: self.key_module(attention) for number, attention in self.attentions.items()}

    def key_module(self, attention: Any) -> nn.Module:
        """The one in an attention."""
        module: nn.Module = getattr(attention, "k_norm", None) or attention.k_proj
        return module

    def keys_of(self, output: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Keys before RoPE [H, Q, D], from the output of a key module. heads: those of the layer's keys."""
        by_head = output[0] if output.dim() == 4 else output[0].unflatten(-1, heads)
        return by_head if self.keys_by_head else by_head.transpose(0, 1)

    @property
    def rotary(self) -> nn.Module:
        """The model's own rotary embedding."""
        module: nn.Module = self.module.rotary_emb
        return module

    @property
    def frequencies(self) -> dict[str, torch.Tensor]:
        """The rotary frequencies of a short window, by name."""
        if self.switch is not None:
            # The embedding still has the frequencies of its last forward pass.
            self.rope_tables(torch.zeros(1, 1))
        return dict(self.rotary.named_buffers())

    @cached_property
    def max_positions(self) -> int:
        """Tokens and positions that a window may have while KV does not depend on where it was computed."""
        most = int(self.config.max_position_embeddings)
        # Beyond the original length, frequencies change with every token, or queries grow with their positions.
        bounded = [
            rope for rope in self._ropes if rope.get("rope_type") == "dynamic" or rope.get("llama_4_scaling_beta")
        ]
        return min((int(rope.get("original_max_position_embeddings") or most) for rope in bounded), default=most)

    @cached_property
    def switch(self) -> int | None:
        """Positions of a window above which RoPE changes the frequencies of all its tokens (longrope); None: never."""
        long = (rope for rope in self._ropes if rope.get("rope_type") == "longrope")
        return next((int(rope["original_max_position_embeddings"]) for rope in long), None)

    @property
    def _ropes(self) -> Sequence[Mapping[str, Any]]:
        """Settings of RoPE: one for all layers, or one for each kind of layer."""
        rope = getattr(self.config, "rope_parameters", None) or {}
        return [rope] if "rope_type" in rope else [by_kind for by_kind in rope.values() if isinstance(by_kind, Mapping)]

    def is_long(self, num_positions: int) -> bool:
        """Whether a window with this number of positions is beyond the switch."""
        return self.switch is not None and num_positions > self.switch

    @cached_property
    def _tables_by_kind(self) -> bool:
        return "layer_type" in signature(self.rotary.forward).parameters

    def rope_tables(self, positions: torch.Tensor, num_positions: int = 0) -> list[Tables]:
        """The model's own cos and sin [1 or L, T, R] in the KV dtype, bank by bank, for positions [A, T].

        num_positions: positions of the whole window; a RoPE that switches its frequencies needs it.
        """
        where = sent(positions, self.device)
        # The largest position of a forward pass decides on a switch, so the last one of the window is added.
        last = where.new_full((len(where), 1), max(num_positions - 1, 0))
        # M-RoPE takes [3, 1, T], everything else [1, T].
        where = where if self.switch is None else torch.cat([where, last], dim=-1)
        tables = self.tables_by_kind(where[:, None] if len(where) > 1 else where)
        if self.switch is not None:
            tables = {kind: (cos[:, :-1], sin[:, :-1]) for kind, (cos, sin) in tables.items()}
        return [self._tables_of(shape, *tables[shape.kind]) for shape in self.shapes]

    def _tables_of(self, shape: KVShape, cos: torch.Tensor, sin: torch.Tensor) -> Tables:
        """The tables of a bank."""
        turned = [self.turned[layer] for layer in shape.layers] if self.turned else [True]
        cos, sin = cos.to(shape.device), sin.to(shape.device)
        if all(turned):
            return cos, sin
        turns = torch.tensor(turned if any(turned) else [False], device=shape.device)[:, None, None]
        return cos.where(turns, 1), sin.where(turns, 0)

    def tables_by_kind(self, where: torch.Tensor) -> dict[str, Tables]:
        """cos and sin [1, T, R] for positions as the rotary embedding takes them, by kind of layer that attends."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        kinds = dict.fromkeys(kind for kind in self.kinds if kind in ATTENDING)
        if not self._tables_by_kind:
            return dict.fromkeys(kinds, self._table(like, where))
        return {kind: self._table(like, where, kind) for kind in kinds}

    def _table(self, like: torch.Tensor, where: torch.Tensor, *kind: str) -> Tables:
        cos, sin = self.rotary(like, where, *kind)
        return cos, sin

    def hidden_states(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        masks: Mapping[str, torch.Tensor],
        cache: SlotCache,
        **extras: Any,
    ) -> torch.Tensor:
        """Decoder output [Q, hidden] for embeds [Q, hidden], positions [A, Q] and, per kind, masks [1, 1, Q, S]."""
        where = sent(positions, self.device)
        # Recurrent layers need no mask.
        mask = {**dict.fromkeys(self.kinds), **masks} if len({*self.kinds}) > 1 else next(iter(masks.values()))
        hidden: torch.Tensor = self.module(
            inputs_embeds=embeds[None],
            position_ids=where[:, None] if len(where) > 1 else where,
            attention_mask=mask,
            use_cache=True,
            **{self._cache_argument: cache},
            **extras,
        ).last_hidden_state
        return hidden[0]

    @cached_property
    def _cache_argument(self) -> str:
        return cache_argument(self.module)


def check_kinds(kinds: Sequence[str], model_type: str) -> None:
    """Raise UnsupportedModelError, naming the first layer, for a kind that cannot be rebuilt from chunks.

    kinds: per layer. model_type: of the text model.
    """
    recurrence = RECURRENCES.get(model_type)
    served = (*ATTENDING, *(recurrence.kinds if recurrence else ()))
    for layer, kind in enumerate(kinds):
        if kind not in served:
            reason = REASONS.get(kind, "an attention that cannot be rebuilt from chunks yet")
            raise UnsupportedModelError(
                f"Layer {layer} is of kind {kind!r}: {reason}. Use a model whose layers are {FULL} or {SLIDING}."
            )
