"""Chunks, antecedents and the records that carry them between the runtime and the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from blake3 import blake3

FORMAT_VERSION = 1

RecordKind = Literal["canonical", "patch"]


class Key(NamedTuple):
    """Identity of a chunk or of a record: the digest finds it, the material proves it.

    digest: BLAKE3-256 of the material, 32 bytes.
    material: canonical JSON of everything the KV depends on; compared in full on every hit.
    """

    digest: bytes
    material: str

    @classmethod
    def of(cls, **facts: Any) -> Key:
        """Build a key from JSON-serialisable facts. Equal facts give equal keys in any order."""
        material = json.dumps({"format": FORMAT_VERSION, **facts}, sort_keys=True, separators=(",", ":"))
        return cls(blake3(material.encode()).digest(), material)


ChunkKind = Literal["image", "frames", "document"]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The tokens of one image, frame group or document: the unit that is fingerprinted, stored and moved.

    key: identity (pixels, shape, timestamps, processor, model, namespace).
    token_ids: its tokens, placeholders included, with the markers that open and close it.
    offsets: positions relative to the chunk's start, one row per RoPE axis [A, T].
    extent: how far it moves whatever follows it, in positions.
    pixels: [H, W, 3] or [N, H, W, 3] uint8 RGB; what the encoder sees when nothing cached serves. A document has none.
    grid: patches before merging (time, height, width); zeros where the backbone does not count in them.
    seconds_per_grid: seconds between two temporal grid steps, where the backbone knows time.
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
        """Whether the vision encoder has to see it; a document is text."""
        return self.kind != "document"


@dataclass(frozen=True, slots=True)
class TextRun:
    """Text tokens that lie together. Every token takes one position on every axis."""

    token_ids: tuple[int, ...]

    @property
    def digest(self) -> bytes:
        """BLAKE3-128 of the token ids: enough to tell runs apart, never a proof."""
        return blake3(np.array(self.token_ids, dtype=np.int64).tobytes()).digest(16)

    @property
    def extent(self) -> int:
        """Positions taken."""
        return len(self.token_ids)


Run = Chunk | TextRun


@dataclass(frozen=True, slots=True)
class Antecedents:
    """What stood before a chunk when its KV was computed.

    chunks: digests of the chunks before it, in order.
    texts: digests of the text runs before it, in order (the anchor is not one of them).
    approximate: whether the KV of any of them was not exact.
    """

    chunks: tuple[bytes, ...] = ()
    texts: tuple[bytes, ...] = ()
    approximate: bool = False

    @property
    def orbit(self) -> tuple[bytes, ...]:
        """The antecedent chunks without their order (paper: one patch serves the orbit)."""
        return tuple(sorted(self.chunks))


@dataclass(frozen=True, slots=True)
class Header:
    """A record without its tensors.

    key: identity of the record.
    chunk: digest of the chunk it belongs to (equal to key.digest for canonical KV in full).
    kind: "canonical" or "patch".
    attributes: small JSON facts about the tensors (for a patch: antecedents, ranks, energy, error).
    num_bytes: bytes of the tensors.
    """

    key: Key
    chunk: bytes
    kind: RecordKind
    attributes: Mapping[str, Any] = field(default_factory=dict)
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps: a header and, per layer, the tensors of that layer.

    Canonical KV: layers[l] = (K pre-RoPE [H, T, D], V [H, T, D]); for MLA (raw k_pe [1, T, P], c_KV [1, T, C]).
    In int8: (K, V, step of K [H, 1, D], step of V [H, T, 1]).
    Patch: layers[l] = (U [T, r_l], V [r_l, W]), W numbers of a token's K and V, or (U, V, scale [r_l]) in int8; r_l
    may differ and be 0.
    Tensors are contiguous and lie on the CPU. Nobody writes to them once they are in a record.
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
    ) -> Record:
        """Join a header and tensors; counts the bytes."""
        frozen = tuple(tuple(tensors) for tensors in layers)
        num_bytes = sum(t.numel() * t.element_size() for tensors in frozen for t in tensors)
        return cls(Header(key, chunk, kind, dict(attributes or {}), num_bytes), frozen)
