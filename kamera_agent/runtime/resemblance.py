"""Resemblance: which tokens of an image show what the same tokens of another image show."""

from __future__ import annotations

from collections import OrderedDict

import torch
from blake3 import blake3

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.base import Family

# Images whose tiles are known, each with 16 bytes per token.
KNOWN = 64


class Resemblance:
    """Compares images tile by tile, by digests of what the encoder gets for each. Knows those of the last images."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._known: OrderedDict[bytes, list[bytes] | None] = OrderedDict()

    def changed(self, chunk: Chunk, other: Chunk) -> list[int] | None:
        """The tokens of an image, by index, that another one does not give: of tiles that differ, and markup.

        None where the two have no tiles in common: of another size, or of a model without them.
        """
        if (chunk.token_ids, chunk.grid) != (other.token_ids, other.grid):
            return None
        ours, theirs = self._tiles(chunk), self._tiles(other)
        if ours is None or theirs is None:
            return None
        same = iter(one == another for one, another in zip(ours, theirs, strict=True))
        placeholders = self._family.placeholder_ids
        return [index for index, token in enumerate(chunk.token_ids) if not (token in placeholders and next(same))]

    def _tiles(self, chunk: Chunk) -> list[bytes] | None:
        """BLAKE3-128 of each tile; None for an image without them."""
        if chunk.digest not in self._known:
            tiles = self._family.tiles(chunk)
            self._known[chunk.digest] = None if tiles is None else [_digest(tile) for tile in tiles]
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(chunk.digest)
        return self._known[chunk.digest]


def _digest(tile: torch.Tensor) -> bytes:
    return blake3(tile.contiguous().numpy().tobytes()).digest(16)
