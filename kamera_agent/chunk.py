"""Chunks and text runs, and the records that carry KV between the runtime and the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from blake3 import blake3

FORMAT_VERSION = 4

RecordKind = Literal["base", "patch"]


class Key(NamedTuple):
    """Identity of a chunk or a record: the digest finds it, and the material proves it.

    digest: BLAKE3-256 of the material, 32 bytes.
    material: JSON, with sorted names, of all that the KV depends on; it is compared in full on every hit.
    """

    digest: bytes
    material: str

    @classmethod
    def of(cls, **facts: Any) -> Key:
        """Build a key from JSON-serialisable facts. Their order does not change the key."""
        material = json.dumps({"format": FORMAT_VERSION, **facts}, sort_keys=True, separators=(",", ":"))
        return cls(blake3(material.encode()).digest(), material)

    @property
    def namespace(self) -> str:
        """The namespace that the material names; "" where it names none."""
        try:
            facts = json.loads(self.material)
        except (ValueError, RecursionError):
            return ""
        name = facts.get("namespace") if isinstance(facts, dict) else None
        return name if isinstance(name, str) else ""


ChunkKind = Literal["image", "frames", "document"]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The tokens of one image, frame group or document: the unit that is fingerprinted, stored and moved.

    key: identity (pixels, shape, timestamps, processor, model, namespace).
    token_ids: its tokens, including placeholders and the markers that open and close it.
    offsets: positions [A, T] relative to the chunk's start, one row per RoPE axis.
    extent: number of positions from its start to the start of the next run.
    pixels: [H, W, 3] or [N, H, W, 3] uint8 RGB, for the encoder if its output is not cached. Empty for a document.
    grid: patches before merging (time, height, width); zeros if the backbone does not use a grid.
    seconds_per_grid: seconds between two temporal steps of the grid; None if the backbone does not use time.
    """

    key: Key
    kind: ChunkKind
    token_ids: tuple[int, ...]
    offsets: torch.Tensor
    extent: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    grid: tuple[int, int, int] = (0, 0, 0)
    seconds_per_grid: float | None = None

    @property
    def digest(self) -> bytes:
        """Digest of the chunk's key."""
        return self.key.digest

    @property
    def has_pixels(self) -> bool:
        """Whether the chunk is encoded from pixels; a document is not."""
        return self.kind != "document"


@dataclass(frozen=True)
class TextRun:
    """Adjacent text tokens. Each token takes one position on every axis."""

    token_ids: tuple[int, ...]

    @cached_property
    def digest(self) -> bytes:
        """BLAKE3-128 of the token ids: it distinguishes runs, but never proves that two are equal."""
        return blake3(np.array(self.token_ids, dtype=np.int64).tobytes()).digest(16)

    @property
    def extent(self) -> int:
        """Number of positions."""
        return len(self.token_ids)


Run = Chunk | TextRun


@dataclass(frozen=True, slots=True)
class Header:
    """A record without its tensors.

    key: identity of the record.
    chunk: digest of the chunk that it belongs to; equal to key.digest for a base of the default settings.
    kind: "base" or "patch".
    attributes: JSON facts about the tensors: antecedents, and for a patch ranks, energy and error.
    num_bytes: size of the tensors.
    base: digest of the key of the base that a patch is fitted over; None for a base.
    """

    key: Key
    chunk: bytes
    kind: RecordKind
    attributes: Mapping[str, Any] = field(default_factory=dict)
    num_bytes: int = 0
    base: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The unit that a store keeps: a header and the tensors of the layers.

    layers: one entry per layer that keeps anything, in the order of the model; their shapes may differ.
    Base: layers[l] = (K pre-RoPE [H, T, D], V [H, T, D]); for MLA (raw k_pe [1, T, P], c_KV [1, T, C]).
    In int8: (K, V, step of K [H, 1, D], step of V [H, T, 1]).
    Patch: layers[l] = (U [T, r_l], V [r_l, W]), or (U, V, scale [r_l]) in int8. W is the number of values in a token's
    K and V; the rank r_l may differ between layers and may be 0.
    Tensors are contiguous and on the CPU, and are never written to once they are in a record.
    """

    header: Header
    layers: tuple[tuple[torch.Tensor, ...], ...]

    @classmethod
    def of(
        cls,
        key: Key,
        chunk: bytes,
        kind: RecordKind,
        layers: Sequence[Sequence[torch.Tensor]],
        attributes: Mapping[str, Any] | None = None,
        base: bytes | None = None,
    ) -> Record:
        """Make a record of tensors, with their size in its header."""
        frozen = tuple(tuple(tensors) for tensors in layers)
        num_bytes = sum(t.numel() * t.element_size() for tensors in frozen for t in tensors)
        return cls(Header(key, chunk, kind, dict(attributes or {}), num_bytes, base), frozen)
