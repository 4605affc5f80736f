"""The work on one file: every chunk of it that a store does not have yet is computed and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kamera_agent.closing import Closing
from kamera_agent.errors import InputError
from kamera_agent.kamera import Kamera
from kamera_agent.vision.frames import DEFAULT_FPS
from kamera_agent.window.content import Content
from kamera_agent.window.media import stream_media


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all files.

    model, store, device: as of Kamera.from_pretrained(). key: of an encrypted store. fps: frames kept per second of a
    clip. namespace: of the chunks.
    """

    model: str
    store: str | Sequence[str]
    key: str | None = None
    fps: float = DEFAULT_FPS
    namespace: str = "default"
    device: str = "auto"


class Outcome(NamedTuple):
    """What became of a file. error: why it was not taken to its end; None where it was."""

    path: Path
    num_computed: int = 0
    num_known: int = 0
    error: str | None = None


class Ingester(Closing):
    """A model over a store. Raises what Kamera.from_pretrained() raises."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._kamera = Kamera.from_pretrained(
            job.model, job.store, job.device, namespace=job.namespace, encryption_key=job.key, heal="never"
        )

    def take(self, path: Path) -> Outcome:
        """Store the chunks of a file. They are durable when this returns, those before a fault in the file, too."""
        computed, error = list[bool](), None
        try:
            for content in stream_media(path, self._job.fps):
                computed.append(self._compute(content))
        except InputError as fault:
            error = str(fault)
        self._kamera.flush()
        return Outcome(path, sum(computed), len(computed) - sum(computed), error)

    def _compute(self, content: Content) -> bool:
        """Compute a chunk after the beginning of a prompt alone; returns whether the store did not have it."""
        window = self._kamera.window()
        window.sync([content])
        is_new = window.plan().rows[-1].origin == "computed"
        if is_new:
            window.logits()
        return is_new

    def close(self) -> None:
        """Close the Kamera. Idempotent."""
        self._kamera.close()
