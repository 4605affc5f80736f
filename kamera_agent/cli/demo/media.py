"""What the agent sees: six screenshots and six groups of two frames."""

from __future__ import annotations

from pathlib import Path

from kamera_agent import FramesContent, ImageContent
from kamera_agent.errors import InputError
from kamera_agent.vision.image import decode_image
from kamera_agent.vision.sampling import sample_fps

MEDIA = Path(__file__).parents[1] / "media"

NUM_PAGES = 6
NUM_GROUPS = 6
GROUP_FRAMES = 2

Media = dict[str, ImageContent | FramesContent]


def load_media(folder: Path) -> Media:
    """Contents of the trace by name, decoded.

    folder: one .mp4 of at least 12 frames at two per second, and six .png, taken in order of name.
    Raises InputError when there is less, ImageError or VideoError for a file that cannot be read.
    """
    pages, clips = sorted(folder.glob("*.png")), sorted(folder.glob("*.mp4"))
    if len(pages) < NUM_PAGES or not clips:
        found = f"{len(pages)} .png and {len(clips)} .mp4"
        raise InputError(f"{folder} holds {found}; the demo needs {NUM_PAGES} and 1.")
    clip = sample_fps(clips[0])
    num_frames = len(clip.timestamps)
    if num_frames < NUM_GROUPS * GROUP_FRAMES:
        raise InputError(f"{clips[0]} gives {num_frames} frames; the demo needs {NUM_GROUPS * GROUP_FRAMES}.")
    media: Media = {}
    for i in range(NUM_GROUPS):
        group = slice(i * GROUP_FRAMES, (i + 1) * GROUP_FRAMES)
        media[f"yard{i + 1}"] = FramesContent(clip.pixels[group], clip.timestamps[group])
    for i, page in enumerate(pages[:NUM_PAGES]):
        media[f"page{i + 1}"] = ImageContent(decode_image(page))
    return media
