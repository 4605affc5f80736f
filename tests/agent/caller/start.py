"""Initial weights of the decoder: heads that look back, heads that find the same words, and heads that repeat.

Training changes all of them. A token has one code; a head of the first layer writes the code of an earlier token into a
subspace of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from training.frame import head_rows, orthonormal

# Distances of the earlier tokens that a token knows after the first layer.
LOOK_BACK = (1, 2, 3)
# Scales of the scores of the first heads, which look back, and of the second ones, which compare; scales of their
# output.
NEARNESS, SHARPNESS = 7.75, 2.0
CARRIED, REPEATED = 0.25, 1.5
# Length of embeddings within the subspace of the code and outside of it; scale of the output of all other weights.
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
    """Let heads look LOOK_BACK tokens back, with the faster half of the frequencies."""
    size, fast = attention.head_dim, len(frequencies) // 2
    for group in range(_groups(attention)):
        attention.k_proj.bias[group * size : group * size + fast] = NEARNESS
    for head, distance in enumerate(LOOK_BACK):
        rows, angles = attention.q_proj.bias[head_rows(attention, head)], distance * frequencies[:fast]
        rows[:fast] = NEARNESS * angles.cos()
        rows[size // 2 : size // 2 + fast] = -NEARNESS * angles.sin()


def _compare(attention: Any, group: int, known: tuple[torch.Tensor, ...]) -> None:
    """Let the first head of a group find the token after the same words.

    Query and key read neighbouring places: the token of the query is compared with the token before the key, and so on.
    A match must not depend on the distance, so it uses the slower half of the frequencies.
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
    """Let the first head of a group write the code of the token that it looks at."""
    attention.v_proj.weight[head_rows(attention, group)] = code
    attention.o_proj.weight[:, head_rows(attention, group * attention.num_key_value_groups)] = REPEATED * code.mT


def _groups(attention: Any) -> int:
    return int(attention.k_proj.out_features // attention.head_dim)
