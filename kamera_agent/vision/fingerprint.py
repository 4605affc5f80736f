"""Digests of pixels and tokens, and the key of a chunk."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from kamera_agent.chunk import ChunkKind, Key
from kamera_agent.vision.image import Pixels


def fingerprint_image(pixels: Pixels) -> str:
    """BLAKE3-256 of shape, dtype and pixels, in hex. pixels: [H, W, 3] as decode_image returns them."""
    return _digest("image", pixels)


def fingerprint_frames(pixels: Pixels, timestamps: Sequence[float]) -> str:
    """BLAKE3-256 of shape, dtype, pixels and timestamps, in hex.

    pixels: [N, H, W, 3]. timestamps: N seconds.
    """
    return _digest("frames", pixels, struct.pack(f"<{len(timestamps)}d", *timestamps))


def fingerprint_tokens(token_ids: Sequence[int]) -> str:
    """BLAKE3-256 of token ids, in hex."""
    return blake3(np.array(token_ids, np.int64).tobytes()).hexdigest()


def fingerprint_layout(token_ids: Sequence[int], offsets: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """BLAKE3-256 of a chunk's token ids and of their positions [A, T] from its start, in hex."""
    layout = np.array([token_ids, *offsets], np.int64)
    return blake3(f"{list(layout.shape)}\n".encode() + layout.tobytes()).hexdigest()


def _digest(kind: str, pixels: Pixels, tail: bytes = b"") -> str:
    # The shape ends with a line break and fixes how many bytes follow, so no two inputs hash the same bytes.
    digest = blake3(f"{kind} {pixels.dtype.str} {list(pixels.shape)}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    digest.update(tail)
    return digest.hexdigest()


def chunk_key(
    kind: ChunkKind,
    pixels_digest: str,
    shape: Sequence[int],
    timestamps: Sequence[float],
    layout_digest: str,
    model_identity: Mapping[str, Any],
    processor_identity: Mapping[str, Any],
    namespace: str,
    secret: bytes | None = None,
) -> Key:
    """The key of the chunk that a model and its processor make of these pixels or tokens.

    pixels_digest: from fingerprint_image, fingerprint_frames or, for a document, fingerprint_tokens.
    shape: of the pixels, [H, W, 3] or [N, H, W, 3]; empty for a document.
    timestamps: seconds, one per frame; empty for images and documents.
    layout_digest: from fingerprint_layout. It tells apart what other code makes of the same facts.
    model_identity, processor_identity: JSON values; each of them is part of the key.
    namespace: chunks are never shared between namespaces.
    secret: 32 bytes. With it, both digests in the key are keyed BLAKE3-256 of those given: whoever lacks it can neither
        make the key of pixels that he knows, nor compare them with a key that he sees.

    Raises TypeError when an identity holds a value that JSON cannot express.
    """
    if secret is not None:
        pixels_digest, layout_digest = (
            blake3(digest.encode(), key=secret).hexdigest() for digest in (pixels_digest, layout_digest)
        )
    return Key.of(
        kind=kind,
        pixels=pixels_digest,
        shape=[int(size) for size in shape],
        timestamps=[float(time) for time in timestamps],
        layout=layout_digest,
        model=dict(model_identity),
        processor=dict(processor_identity),
        namespace=namespace,
    )
