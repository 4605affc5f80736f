"""From tokens and pixels to a chunk with its key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kamera_agent.chunk import Chunk, ChunkKind
from kamera_agent.runtime.families.identity import Identity
from kamera_agent.vision.fingerprint import (
    chunk_key,
    fingerprint_frames,
    fingerprint_image,
    fingerprint_layout,
    fingerprint_tokens,
)
from kamera_agent.vision.image import Pixels

NO_PIXELS: Pixels = np.empty((0, 0, 3), np.uint8)


def make_chunk(
    identity: Identity,
    kind: ChunkKind,
    pixels: Pixels,
    namespace: str,
    token_ids: Sequence[int],
    offsets: torch.Tensor,
    *,
    timestamps: Sequence[float] = (),
    grid: tuple[int, int, int] = (0, 0, 0),
    seconds_per_grid: float | None = None,
) -> Chunk:
    """Join the facts of a chunk and make its key. offsets: positions [A, T] of its tokens from its start."""
    match kind:
        case "image":
            digest = fingerprint_image(pixels)
        case "frames":
            digest = fingerprint_frames(pixels, timestamps)
        case "document":
            digest = fingerprint_tokens(token_ids)
    key = chunk_key(
        kind=kind,
        pixels_digest=digest,
        shape=pixels.shape if pixels.size else (),
        timestamps=timestamps,
        layout_digest=fingerprint_layout(token_ids, offsets.numpy()),
        model_identity=identity.model,
        processor_identity=identity.processors,
        namespace=namespace,
        secret=identity.secret,
    )
    # The next run begins right after the last token, even where the time axis of a clip reaches further.
    extent = int(offsets[0, -1]) + 1
    return Chunk(key, kind, tuple(token_ids), offsets, extent, pixels, grid, seconds_per_grid)
