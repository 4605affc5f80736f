"""A folder of screenshots by their content, so that an agent's state can hold ids."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from blake3 import blake3

from kamera_agent.errors import ImageError

PREFIX = "kamera:"
OWNER_ONLY = 0o700


class PixelFolder:
    """Encoded images by the BLAKE3 digest of their bytes. Safe for several processes; the same image is kept once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).expanduser()
        self._path.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keep an encoded image; returns its id."""
        digest = blake3(data).hexdigest()
        place = self._path / digest
        if not place.exists():
            # Renamed into place: whoever reads sees all of it or nothing.
            with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as draft:
                draft.write(data)
            os.replace(draft.name, place)
        return PREFIX + digest

    def get(self, image_id: str) -> bytes:
        """The bytes of an image. Raises ImageError where it is gone or damaged."""
        digest = image_id.removeprefix(PREFIX)
        if not digest.isalnum():
            raise ImageError(f"{image_id!r} is no image id.")
        try:
            data = (self._path / digest).read_bytes()
        except FileNotFoundError as error:
            raise ImageError(f"The image {image_id} is not in {self._path} any more; send it again.") from error
        if blake3(data).hexdigest() != digest:
            raise ImageError(f"The image {image_id} in {self._path} is damaged; delete the file and send it again.")
        return data
