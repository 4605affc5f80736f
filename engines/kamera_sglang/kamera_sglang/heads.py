"""Heads: the first tokens of chunks, which the engine may have computed for another chunk in the same place.

The marker that opens an image is the same for all images. Where another image was in the same place before, the
engine's own cache has the marker, so the engine computes the new image without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.mailbox import Pages
from kamera_sglang.rows import cut, joined

# Tokens of a head at most, and heads that are kept.
MAX_TOKENS, MAX_HEADS = 16, 256


class Spot(NamedTuple):
    """Where a chunk is. salt: of the engine's caches. chain: of what is before it."""

    salt: str | None
    chain: bytes


class _Head(NamedTuple):
    token_ids: Sequence[int]
    layers: Sequence[LayerKV]


class Heads:
    """The heads of the last chunks. placeholders: tokens that do not tell what is computed for them."""

    def __init__(self, placeholders: Collection[int]) -> None:
        self._placeholders = placeholders
        self._heads = OrderedDict[Spot, _Head]()

    def completed(self, spot: Spot, token_ids: Sequence[int], pages: Pages) -> Pages | None:
        """The KV of a whole chunk, from that of its end; None where its beginning is not known.

        token_ids: of the whole chunk.
        """
        num_missing = len(token_ids) - pages.num_tokens
        whole = pages if num_missing == 0 else self._joined(spot, token_ids[:num_missing], pages)
        if whole:
            self._keep(spot, token_ids, whole)
        return whole

    def _joined(self, spot: Spot, missing: Sequence[int], pages: Pages) -> Pages | None:
        head = self._heads.get(spot)
        if head is None or [*head.token_ids[: len(missing)]] != [*missing]:
            return None
        parts = zip(head.layers, pages.layers, strict=True)
        layers = [joined([cut(first, slice(len(missing))), rest]) for first, rest in parts]
        return Pages(pages.start - len(missing), layers)

    def _keep(self, spot: Spot, token_ids: Sequence[int], pages: Pages) -> None:
        texts = [*takewhile(lambda token: token not in self._placeholders, token_ids[:MAX_TOKENS])]
        # A copy: a view would keep all of the chunk.
        layers = [joined([cut(layer, slice(len(texts)))]) for layer in pages.layers]
        self._heads[spot] = _Head(texts, layers)
        self._heads.move_to_end(spot)
        while len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)
