"""The frame of reference that tower and decoder start with: a word is told by one code, its slot by a subspace.

The decoder's first heads are given weights that look cards up by it. All of it is a start only: training moves it on.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch

# Dimensions of each slot of a cell's description. The third has four words only.
SIZES = (60, 60, 8)
# How sharply the first heads look: the score of a match is about 9, of anything else about 0 ± 2.
SHARPNESS = 1.3
COPY = 2.0


class Frame(NamedTuple):
    """shared [hidden, D]: from a word's embedding to its code. slots: per slot, a code's place [d, hidden], d <= D.

    A slot with fewer dimensions than D takes the first ones of the code.
    """

    shared: torch.Tensor
    slots: tuple[torch.Tensor, ...]

    @classmethod
    def make(cls, hidden: int, seed: int) -> Self:
        """Random subspaces, all at right angles."""
        generator = torch.Generator().manual_seed(seed)
        shared, places = (torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))[0] for _ in range(2))
        return cls(shared[:, : max(SIZES)], places.split([*SIZES, hidden - sum(SIZES)])[: len(SIZES)])


@torch.no_grad()
def prime(text: Any, frame: Frame) -> None:
    """Give the heads of gaze.HEADS weights that find what they are to look at.

    Only dimensions that RoPE turns slowly are used: a match must not depend on the distance.
    """
    label, value, _ = frame.slots
    layers = [layer.self_attn for layer in text.layers]
    for attention in layers[:2]:
        look = _slow(attention, frame, text)
        # same: my label, your label; target: my value, your label; source: my label, your value.
        _set(attention, 0, key=look @ label, queries=(look @ label, look @ value))
        _set(attention, 1, key=look @ value, queries=(look @ label,))
    # The word that a question is about goes to where the answer begins, and from there looks for its label.
    carry = torch.linalg.qr(torch.randn(frame.shared.shape[1], layers[2].head_dim))[0].mT @ frame.shared.mT
    rows = slice(layers[2].head_dim, 2 * layers[2].head_dim)
    layers[2].v_proj.weight[rows] = carry
    layers[2].o_proj.weight[:, 3 * layers[2].head_dim : 4 * layers[2].head_dim] = COPY * carry.mT
    look = _slow(layers[3], frame, text)
    _set(layers[3], 0, key=look @ label, queries=(look @ frame.shared.mT,))


def _slow(attention: Any, frame: Frame, text: Any) -> torch.Tensor:
    """A random projection [head_dim, D] into the dimensions with the lower frequencies of the three axes."""
    pairs, (times, *_) = attention.head_dim // 2, text.config.rope_parameters["mrope_section"]
    slow = [dim for dim in range(attention.head_dim) if dim % pairs >= times]
    look = torch.zeros(attention.head_dim, frame.shared.shape[1])
    look[slow] = torch.linalg.qr(torch.randn(frame.shared.shape[1], len(slow)))[0].mT
    return SHARPNESS * look


def _set(attention: Any, group: int, key: torch.Tensor, queries: tuple[torch.Tensor, ...]) -> None:
    """Weights of one key head, and of the first of its query heads."""
    size, first = attention.head_dim, group * attention.num_key_value_groups
    attention.k_proj.weight[group * size : (group + 1) * size] = key
    for head, query in enumerate(queries, start=first):
        attention.q_proj.weight[head * size : (head + 1) * size] = query
