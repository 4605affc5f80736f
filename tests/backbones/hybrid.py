"""The reference for hybrids: layers replayed token by token over inputs that were recorded in another window.

1. Plain Hugging Face reads the first window. What its layers put in between is recorded: K before RoPE and V; the
   columns before the convolution, and what decay and rate are made of.
2. The edited window is replayed. A token that was recorded gives its keys, turned to its new position, and its update
   of the state, as it was; any other token is computed. A state is followed from token to token, in float64.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import normalize, sigmoid, silu, softplus
from transformers.models.qwen3_5.modeling_qwen3_5 import apply_rotary_pos_emb

LINEAR = ("in_proj_qkv", "in_proj_a", "in_proj_b")
FULL = ("k_norm", "v_proj")


@dataclass
class Recorded:
    """embeds [T, hidden]. positions [3, T]. outputs: by layer and module, [T, ...]."""

    embeds: torch.Tensor
    positions: torch.Tensor
    outputs: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)


@torch.no_grad()
def record(model: Any, inputs: dict[str, Any]) -> Recorded:
    """What a plain forward pass of the whole model puts in between."""
    text, found = model.model.language_model, list[Recorded]()

    def begin(module: Any, args: Any, kwargs: Any) -> None:
        found.append(Recorded(kwargs["inputs_embeds"][0], kwargs["position_ids"][:, 0]))

    with ExitStack() as hooks:
        hooks.callback(text.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for number, layer in enumerate(text.layers):
            mixer = getattr(layer, "linear_attn", None) or layer.self_attn
            for name in LINEAR + FULL:
                if module := getattr(mixer, name, None):

                    def keep(_: Any, __: Any, output: torch.Tensor, key: Any = (number, name)) -> None:
                        found[0].outputs[key] = output[0]

                    hooks.callback(module.register_forward_hook(keep).remove)
        model.model.rope_deltas = None
        model(**inputs, use_cache=False)
    return found[0]


@torch.no_grad()
def replay(model: Any, old: Recorded, new: Recorded, source: Sequence[int | None]) -> torch.Tensor:
    """Next-token logits [vocab] of a window. source: per token, where the first window had it; None: it is computed.

    new: the embeddings and positions of the window.
    """
    text = model.model.language_model
    fresh = [place for place, origin in enumerate(source) if origin is None]
    hidden = new.embeds[fresh]
    cos, sin = text.rotary_emb(hidden[None], new.positions[:, None])
    for number, layer in enumerate(text.layers):
        normed = layer.input_layernorm(hidden)
        recorded = {name: old.outputs.get((number, name)) for name in LINEAR + FULL}
        if hasattr(layer, "linear_attn"):
            mixed = _delta(layer.linear_attn, normed, recorded, source)
        else:
            mixed = _attend(layer.self_attn, normed, recorded, source, fresh, cos, sin)
        hidden = hidden + mixed
        output = layer.mlp(layer.post_attention_layernorm(hidden)[None])
        hidden = hidden + (output[0] if isinstance(output, tuple) else output)[0]
    return model.lm_head(text.norm(hidden[-1])).float()


def _merged(recorded: torch.Tensor, fresh: torch.Tensor, source: Sequence[int | None]) -> torch.Tensor:
    rows = iter(fresh)
    return torch.stack([next(rows) if origin is None else recorded[origin] for origin in source])


def _attend(
    attention: Any,
    hidden: torch.Tensor,
    recorded: dict[str, Any],
    source: Sequence[int | None],
    fresh: Sequence[int],
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    size = attention.head_dim
    query, gate = attention.q_proj(hidden).unflatten(-1, (-1, 2 * size)).chunk(2, dim=-1)
    query = attention.q_norm(query).transpose(0, 1)
    own = attention.k_norm(attention.k_proj(hidden).unflatten(-1, (-1, size)))
    key = _merged(recorded["k_norm"], own, source).transpose(0, 1)
    value = _merged(recorded["v_proj"], attention.v_proj(hidden), source).unflatten(-1, (-1, size)).transpose(0, 1)
    query, _ = apply_rotary_pos_emb(query[None], query[None], cos[:, fresh], sin[:, fresh])
    key, _ = apply_rotary_pos_emb(key[None], key[None], cos, sin)
    groups = len(query[0]) // len(key[0])
    scores = query[0] @ key[0].repeat_interleave(groups, dim=0).mT * attention.scaling
    later = torch.arange(len(source)) > torch.tensor(fresh)[:, None]
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    output = weights @ value.repeat_interleave(groups, dim=0)
    return attention.o_proj((output.transpose(0, 1) * sigmoid(gate)).flatten(1))


def _delta(mixer: Any, hidden: torch.Tensor, recorded: dict[str, Any], source: Sequence[int | None]) -> torch.Tensor:
    own = {name: getattr(mixer, name)(hidden) for name in LINEAR}
    merged = {name: _merged(recorded[name], own[name], source).double() for name in LINEAR}
    before = recorded["in_proj_qkv"].double()
    num_keys = mixer.key_dim
    state = torch.zeros(mixer.num_v_heads, mixer.head_k_dim, mixer.head_v_dim, dtype=torch.float64)
    outputs = []
    for place, origin in enumerate(source):
        # A recorded token keeps the neighbours that its convolution saw.
        column = _convolve(mixer, merged["in_proj_qkv"], place) if origin is None else _convolve(mixer, before, origin)
        query, key = (
            normalize(part.unflatten(-1, (mixer.num_k_heads, -1)), dim=-1, eps=1e-6).repeat_interleave(
                mixer.num_v_heads // mixer.num_k_heads, dim=0
            )
            for part in (column[:num_keys], column[num_keys : 2 * num_keys])
        )
        value = column[2 * num_keys :].unflatten(-1, (mixer.num_v_heads, -1))
        rate = sigmoid(merged["in_proj_b"][place])[:, None, None]
        decay = torch.exp(-mixer.A_log.double().exp() * softplus(merged["in_proj_a"][place] + mixer.dt_bias.double()))
        state = decay[:, None, None] * state
        known = (state * key[:, :, None]).sum(1, keepdim=True)
        state = state + rate * key[:, :, None] * (value[:, None] - known)
        if origin is None:
            outputs.append((state * query[:, :, None]).sum(1) * mixer.head_k_dim**-0.5)
    mixed, gate = torch.stack(outputs).float(), mixer.in_proj_z(hidden)
    normed = mixer.norm(mixed.flatten(0, 1), gate.reshape(-1, mixer.head_v_dim))
    return mixer.out_proj(normed.reshape(len(hidden), -1))


def _convolve(mixer: Any, columns: torch.Tensor, place: int) -> torch.Tensor:
    """The column [C] at a place after the convolution over columns [T, C]."""
    weight = mixer.conv1d.weight[:, 0].double()
    size = weight.shape[1]
    seen = [columns[at] if at >= 0 else torch.zeros_like(columns[0]) for at in range(place - size + 1, place + 1)]
    return silu((torch.stack(seen, dim=-1) * weight).sum(-1))
