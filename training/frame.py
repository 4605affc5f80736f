"""The frame of reference that tower and decoder start from: each word has a code, and each slot a subspace.

The first heads of the decoder start with weights that look up cards by these codes. Training changes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch

# Dimensions of each slot of a cell. The third slot has only four words.
SIZES = (60, 60, 8)
# Scale of the first heads' projections: a match scores about 9, anything else 0 ± 2.
SHARPNESS = 1.3
COPY = 2.0
# Scale of what the first layer writes, and of the second layer's queries for it.
FOUND, GAIN = 0.4, 3.0
# Pairs of dimensions with frequencies of time, and the bias by which a head recognises its own picture.
TIMES, NEARNESS = (1, 2, 3), 3.5


class Frame(NamedTuple):
    """Projections between embeddings, codes and features.

    shared [hidden, D]: from the embedding of a word to its code. slots: per slot [d, hidden], from a code to its place
    in a feature. A slot with d < D takes the first d dimensions of the code.
    """

    shared: torch.Tensor
    slots: tuple[torch.Tensor, ...]

    @classmethod
    def make(cls, hidden: int, seed: int) -> Self:
        """Random subspaces, orthogonal to each other."""
        generator = torch.Generator().manual_seed(seed)
        shared, places = (torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))[0] for _ in range(2))
        return cls(shared[:, : max(SIZES)], places.split([*SIZES, hidden - sum(SIZES)])[: len(SIZES)])


@torch.no_grad()
def prime(text: Any, frame: Frame) -> None:
    """Give the heads of gaze.HEADS weights that find their targets.

    A match uses dimensions that RoPE turns slowly, because it must not depend on the distance. The fast dimensions
    make a head look at its own screen or away from it.
    """
    label, value, _ = frame.slots
    shared = frame.shared.mT
    first, second, third, fourth = (layer.self_attn for layer in text.layers[:4])
    size = first.head_dim
    # The heads of the first layer write what they find to places of their own: a value to the card that looked for its
    # label, a label to the card that looked for its value. The second layer searches with these.
    thin, places = orthonormal(size, len(shared)), [orthonormal(size, shared.shape[1]) for _ in range(4)]
    _carry(first, 0, thin @ value, {0: FOUND * places[0], 1: FOUND * places[1]})
    _carry(first, 1, thin @ label, {2: FOUND * places[2], 3: FOUND * places[3]})
    further = GAIN * thin.mT @ places[1], GAIN * thin.mT @ places[2]
    for attention, (forward, backward) in ((first, (value, label)), (second, further)):
        look = _slow(attention, frame, text)
        _look(attention, 0, key=look @ label, queries=(look @ label, look @ forward))
        _look(attention, 1, key=look @ value, queries=(look @ backward,))
        _tell_screens_apart(attention)
    # The subject of a question is copied to the place where the answer begins, and its card is searched from there.
    _carry(third, 1, thin @ shared, {3: COPY * thin @ shared})
    look = _slow(fourth, frame, text)
    for group, key in enumerate((label, value)):
        _look(fourth, group, key=look @ key, queries=(look @ shared,))


def orthonormal(rows: int, columns: int) -> torch.Tensor:
    """Random orthonormal rows [rows, columns]."""
    axes: torch.Tensor = torch.linalg.qr(torch.randn(columns, rows))[0]
    return axes.mT


def _slow(attention: Any, frame: Frame, text: Any) -> torch.Tensor:
    """A random projection [head_dim, D] into the dimensions with the lower frequencies of the three axes."""
    pairs, (times, *_) = attention.head_dim // 2, text.config.rope_parameters["mrope_section"]
    slow = [dim for dim in range(attention.head_dim) if dim % pairs >= times]
    look = torch.zeros(attention.head_dim, frame.shared.shape[1])
    look[slow] = orthonormal(len(slow), frame.shared.shape[1])
    return SHARPNESS * look


def head_rows(attention: Any, head: int) -> slice:
    """Rows of a query head in q_proj, of a key head in k_proj and v_proj; columns of a query head in o_proj."""
    return slice(head * attention.head_dim, (head + 1) * attention.head_dim)


def _look(attention: Any, group: int, key: torch.Tensor, queries: tuple[torch.Tensor, ...]) -> None:
    """Set the weights of one key head and of the first of its query heads."""
    attention.k_proj.weight[head_rows(attention, group)] = key
    for head, query in enumerate(queries, start=group * attention.num_key_value_groups):
        attention.q_proj.weight[head_rows(attention, head)] = query


def _carry(attention: Any, group: int, source: torch.Tensor, places: Mapping[int, torch.Tensor]) -> None:
    """Let heads of a group read with one value head, source [head_dim, hidden], and write to places of that shape."""
    attention.v_proj.weight[head_rows(attention, group)] = source
    for head, place in places.items():
        attention.o_proj.weight[:, head_rows(attention, head)] = place.mT


def _tell_screens_apart(attention: Any) -> None:
    """Turn the first head away from the cells of its own picture, and the last one towards them.

    Cells of one picture have the same position in time. The attention by the three middle frequencies of time falls
    off within the extent of a picture.
    """
    for head, group, sign in ((0, 0, -1.0), (3, 1, 1.0)):
        for dim in TIMES:
            attention.q_proj.bias[head * attention.head_dim + dim] = NEARNESS
            attention.k_proj.bias[group * attention.head_dim + dim] = sign * NEARNESS
