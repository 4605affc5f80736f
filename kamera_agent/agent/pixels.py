"""A folder of screenshots, named by their content. With it the state of an agent holds ids."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from kamera_agent.config import locate
from kamera_agent.errors import ImageError

PREFIX = "kamera:"
OWNER_ONLY = 0o700


class PixelFolder:
    """Encoded images by the BLAKE3 digest of their bytes. Equal images are kept once. Safe for several processes.

    max_bytes: bound of all images together. The least recently used images go first.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int) -> None:
        self._path = locate(path)
        self._path.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        self._max_bytes = max_bytes

    def put(self, data: bytes) -> str:
        """Keep an encoded image and return its id."""
        digest = blake3(data).hexdigest()
        if not self.touch(PREFIX + digest):
            self._make_room(len(data))
            # Renamed into place, so a reader sees the whole image or none.
            with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as draft:
                draft.write(data)
            os.replace(draft.name, self._path / digest)
        return PREFIX + digest

    def touch(self, image_id: str) -> bool:
        """Mark an image as used now. Returns whether the folder has it."""
        try:
            os.utime(self._path / image_id.removeprefix(PREFIX))
        except FileNotFoundError:
            return False
        return True

    def get(self, image_id: str) -> bytes:
        """The bytes of an image. Raises ImageError for an image that is gone or damaged."""
        digest = image_id.removeprefix(PREFIX)
        # Ids come from the messages of the caller: none may lead out of the folder.
        if not digest.isalnum():
            raise ImageError(f"{image_id!r} is not an image id; use one that put() returned.")
        try:
            data = (self._path / digest).read_bytes()
            os.utime(self._path / digest)
        except FileNotFoundError as error:
            raise ImageError(f"The image {image_id} is not in {self._path} any more; send it again.") from error
        if blake3(data).hexdigest() != digest:
            raise ImageError(f"The image {image_id} in {self._path} is damaged; delete the file and send it again.")
        return data

    def _make_room(self, num_bytes: int) -> None:
        """Delete the least recently used images. Another process may be deleting the same ones."""
        ages: list[tuple[float, int, Path]] = []
        for place in self._path.iterdir():
            with suppress(FileNotFoundError):
                facts = place.stat()
                ages.append((facts.st_mtime, facts.st_size, place))
        total = num_bytes + sum(size for _, size, _ in ages)
        for _, size, place in sorted(ages):
            if total <= self._max_bytes:
                return
            place.unlink(missing_ok=True)
            total -= size
