"""What the decoder starts with: heads that look back, heads that find the same words, and heads that repeat.

A start only: training moves it on. Tokens have one code; what a head of the first layer carries to a token from an
earlier one lies in a subspace of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from training.frame import head_rows, orthonormal

# Tokens before a token that it knows of after the first layer.
LOOK_BACK = (1, 2, 3)
# How sharply the first heads look back and the second ones compare; how loud either says what it found.
NEARNESS, SHARPNESS = 7.75, 2.0
CARRIED, REPEATED = 0.25, 1.5
# Length of embeddings within the code's subspace and outside of it; share of the usual say of everything else.
CODE, FAINT, QUIET = 2.8, 0.45, 0.2


@torch.no_grad()
def prime(text: Any) -> None:
    """Set the weights of the heads."""
    first, second, third, last = (layer.self_attn for layer in text.layers)
    size, hidden = first.head_dim, first.q_proj.in_features
    code, *places = orthonormal(hidden, hidden).split(size)
    for layer in text.layers:
        layer.mlp.down_proj.weight *= QUIET
        layer.self_attn.o_proj.weight *= QUIET
    embeddings = text.embed_tokens.weight
    embeddings.copy_(CODE * embeddings @ code.mT @ code + FAINT * embeddings)
    _look_back(first, text.rotary_emb.inv_freq)
    for group in range(_groups(first)):
        first.v_proj.weight[head_rows(first, group)] = code
    for head, place in zip(range(len(LOOK_BACK)), places, strict=True):
        first.o_proj.weight[:, head_rows(first, head)] = CARRIED * place.mT
    known = (code, *places)
    for group, depth in enumerate((2, 3)):
        _compare(second, group, known[: depth + 1])
        _repeat(second, group, code)
    _repeat(third, 1, code)
    _repeat(last, 0, code)


def _look_back(attention: Any, frequencies: torch.Tensor) -> None:
    """Heads that look at the token so many places before, by the faster half of the frequencies."""
    size, fast = attention.head_dim, len(frequencies) // 2
    for group in range(_groups(attention)):
        attention.k_proj.bias[group * size : group * size + fast] = NEARNESS
    for head, distance in enumerate(LOOK_BACK):
        rows, angles = attention.q_proj.bias[head_rows(attention, head)], distance * frequencies[:fast]
        rows[:fast] = NEARNESS * angles.cos()
        rows[size // 2 : size // 2 + fast] = -NEARNESS * angles.sin()


def _compare(attention: Any, group: int, known: tuple[torch.Tensor, ...]) -> None:
    """Let a group's first head find the token behind the same words: what a query holds at one place lies at the next.

    A match must not depend on the distance: it uses the slower half of the frequencies.
    """
    size = attention.head_dim
    slow = [dim for dim in range(size) if dim % (size // 2) >= size // 4]
    query, key = torch.zeros(2, size, attention.q_proj.in_features)
    for mine, other in pairwise(known):
        look = SHARPNESS * orthonormal(len(slow), size)
        query[slow] += look @ mine
        key[slow] += look @ other
    attention.q_proj.weight[head_rows(attention, group * attention.num_key_value_groups)] = query
    attention.k_proj.weight[head_rows(attention, group)] = key


def _repeat(attention: Any, group: int, code: torch.Tensor) -> None:
    """Let a group's first head say the token that it looks at."""
    attention.v_proj.weight[head_rows(attention, group)] = code
    attention.o_proj.weight[:, head_rows(attention, group * attention.num_key_value_groups)] = REPEATED * code.mT


def _groups(attention: Any) -> int:
    return int(attention.k_proj.out_features // attention.head_dim)
