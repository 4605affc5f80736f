"""A clip that the pocket model can read: drawn scenes of marked objects on four kinds of ground."""

from pathlib import Path

import cv2
import numpy as np

from kamera_agent.pocket.renderer import draw_shot
from kamera_agent.pocket.screen import Shot
from kamera_agent.pocket.tasks import ask
from kamera_agent.pocket.world import World

SEED = 4
# A shot is two frames, half a second apart.
FPS = 2


def draw_shots(num_shots: int) -> list[Shot]:
    """The shots of one scene, in order of time."""
    return World(np.random.default_rng(SEED)).tell("moves", num_shots)


def write_clip(shots: list[Shot], path: Path) -> None:
    """Encode the shots one after another as MPEG-4."""
    frames = np.concatenate([draw_shot(shot) for shot in shots])
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def true_answer(shots: list[Shot], question: str) -> str:
    """The right answer to a question about a window of these shots."""
    return next(known.answer for known in ask(shots) if known.text == question)
