"""Pages of exact KV: the beginning of a prompt as an engine computed it, for prompts that begin alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from blake3 import blake3

from kamera_agent.chunk import Key, Record
from kamera_agent.runtime.kernels.layers import LayerKV


def page_chains(pages: Iterable[Any]) -> list[str]:
    """A digest of each page and all pages before it, in hex.

    pages: JSON values, one per page: all that its KV depends on besides the model and the pages before it.
    """
    texts = (json.dumps(page, sort_keys=True, separators=(",", ":")).encode() for page in pages)
    chains = accumulate(texts, lambda chain, page: blake3(chain + page).digest(), initial=b"")
    return [chain.hex() for chain in chains if chain]


def page_key(chain: str, namespace: str, **facts: Any) -> Key:
    """The key of a page.

    chain: of page_chains(), or of the engine. facts: of the model, the dtype and the page size.
    """
    return Key.of(kind="page", chain=chain, namespace=namespace, **facts)


def page_record(key: Key, layers: Sequence[LayerKV]) -> Record:
    """A record of a page. layers: K after RoPE [H, T, D] and V [H, T, D], contiguous and on the CPU."""
    return Record.of(key, key.digest, "base", [layer[:2] for layer in layers])


def page_layers(record: Record) -> list[LayerKV]:
    """What page_record() took."""
    return [LayerKV(keys, values) for keys, values in record.layers]
