"""From drawn frames to the chunk that a family makes of them."""

from __future__ import annotations

from kamera_agent.chunk import Chunk
from kamera_agent.pocket.screen import SHOT_TIMES
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


def chunk_of(family: Family, frames: Pixels, namespace: str = "pocket") -> Chunk:
    """The chunk of frames [F, H, W, 3] uint8 RGB: one is a screen, two are a shot."""
    if len(frames) == 1:
        return family.image_chunk(frames[0], namespace)
    return family.frames_chunk(Frames(frames, SHOT_TIMES), namespace)
