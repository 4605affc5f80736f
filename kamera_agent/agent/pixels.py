"""A folder of screenshots, named by their pixels. With it the state of an agent holds ids."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from kamera_agent.config import locate
from kamera_agent.errors import ImageError, SettingError
from kamera_agent.options import path_of, whole
from kamera_agent.secret import SecretSource, read_secret
from kamera_agent.store.cipher import Cipher
from kamera_agent.turns.blocks import PREFIX
from kamera_agent.vision.fingerprint import fingerprint_image
from kamera_agent.vision.image import decode_image

OWNER_ONLY = 0o700
# A file is MARKER, the BLAKE3 digest of the rest, and the rest: the encoded image.
MARKER = b"kamera pixels 1\n"
HEADER = len(MARKER) + 32
# Of an encrypted file: this, and what Cipher.encrypt_file makes of the image.
ENCRYPTED = b"kamera pixels 2\n"
OURS = re.compile(r"[0-9a-f]{64}\.pixels")
# Earlier versions named a file by the BLAKE3 digest of the encoded image, which was all of it.
EARLIER = re.compile(r"[0-9a-f]{64}")
DRAFT, DRAFT_SECONDS = ".kamera-draft-", 3600
# Encoded images whose ids are remembered.
MAX_IDS = 10_000


class PixelFolder:
    """Encoded images by the digest of their pixels. Images of equal pixels are kept once, as they were first encoded.

    The folder is made when it is first written to, and again when it is gone. Other files in it are neither read nor
    deleted. Safe for several threads and processes.

    max_bytes: bound of all images together. The least recently used images go first.
    key: encrypts the images, and hides their digests in the names of the files; see Settings.encryption_key. Files that
        were written without it, or with another one, are not read.
    Raises SettingError for no path, a negative bound, and a key that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int, key: SecretSource | None = None) -> None:
        self.path = locate(path_of("folder", path))
        self._cipher = None if key is None else Cipher(read_secret("encryption_key", key))
        self._max_bytes = whole("folder_bytes", max_bytes)
        if self._max_bytes < 0:
            raise SettingError(f"folder_bytes is {max_bytes}; use 0 or more bytes.")
        # Ids by the digest of the encoded bytes: decoding an image takes longer than anything else here.
        self._ids: dict[str, str] = {}
        # Whether this class wrote the file of a name.
        self._ours: dict[str, bool] = {}

    @property
    def is_encrypted(self) -> bool:
        """Whether the images are encrypted."""
        return self._cipher is not None

    def identify(self, data: bytes) -> str:
        """The id of an encoded image. Raises ImageError for bytes that are no image, or one cut short."""
        digest = blake3(data).hexdigest()
        image_id = self._ids.get(digest)
        if image_id is None:
            image_id = PREFIX + fingerprint_image(decode_image(data))
            if len(self._ids) >= MAX_IDS:
                self._ids.clear()
            self._ids[digest] = image_id
        return image_id

    def put(self, data: bytes) -> str:
        """Keep an encoded image and return its id. Raises ImageError as identify does, and OSError."""
        image_id = self.identify(data)
        place = self._place(image_id)
        if not (self.touch(image_id) and self._unpack(_read(place), image_id) is not None):
            content = self._pack(data, image_id)
            self.path.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
            self._make_room(len(content))
            self._write(place, content)
        return image_id

    def touch(self, image_id: str) -> bool:
        """Mark an image as used now. Returns whether the folder has it."""
        for place in self._places(image_id):
            with suppress(OSError):
                if place.stat().st_size > 0:
                    _mark_used(place)
                    return True
        return False

    def get(self, image_id: str) -> bytes | None:
        """The bytes of an image; None for one that is gone. Raises ImageError for one that cannot be read."""
        place = self._place(image_id)
        if (content := _read(place)) is not None:
            if (data := self._unpack(content, image_id)) is None:
                raise ImageError("its file was damaged.")
        elif self._cipher or (data := _read(place := self._earlier(image_id))) is None:
            return None
        elif blake3(data).hexdigest() != place.name:
            raise ImageError("its file was damaged.")
        else:
            # Earlier versions kept bytes that are no image.
            self.identify(data)
        _mark_used(place)
        return data

    def _place(self, image_id: str) -> Path:
        digest = _digest(image_id)
        return self.path / f"{self._cipher.name(digest).hex() if self._cipher else digest.hex()}.pixels"

    def _places(self, image_id: str) -> Iterator[Path]:
        """Where an image may be."""
        yield self._place(image_id)
        if self._cipher is None:
            yield self._earlier(image_id)

    def _earlier(self, image_id: str) -> Path:
        return self.path / _digest(image_id).hex()

    def _pack(self, data: bytes, image_id: str) -> bytes:
        """The content of the file of an image."""
        if self._cipher is None:
            return MARKER + blake3(data).digest() + data
        return ENCRYPTED + self._cipher.encrypt_file(_digest(image_id), data)

    def _unpack(self, content: bytes | None, image_id: str) -> bytes | None:
        """The encoded image in the content of a file; None for a damaged one, or one of another key."""
        if self._cipher is not None:
            if content is None or not content.startswith(ENCRYPTED):
                return None
            return self._cipher.decrypt_file(_digest(image_id), content[len(ENCRYPTED) :])
        if content is None or not content.startswith(MARKER):
            return None
        data = content[HEADER:]
        return data if blake3(data).digest() == content[len(MARKER) : HEADER] else None

    def _write(self, place: Path, content: bytes) -> None:
        # Renamed into place, so a reader sees the whole image or none.
        with tempfile.NamedTemporaryFile(dir=self.path, prefix=DRAFT, delete=False) as draft:
            try:
                draft.write(content)
                draft.close()
                os.replace(draft.name, place)
            except BaseException:
                with suppress(OSError):
                    os.unlink(draft.name)
                raise

    def _make_room(self, num_bytes: int) -> None:
        """Delete the least recently used images. Other processes may be reading, writing or deleting the same ones."""
        images = sorted(self._images())
        total = num_bytes + sum(size for _, size, _ in images)
        for used, size, place in images:
            if total <= self._max_bytes:
                return
            with suppress(OSError):
                # Another process may have used it since.
                if place.stat().st_mtime == used:
                    place.unlink()
            total -= size

    def _is_ours(self, place: Path) -> bool:
        """Whether this class wrote the file. A name alone could be that of somebody else's file."""
        ours = self._ours.get(place.name)
        if ours is None:
            ours = False
            if OURS.fullmatch(place.name):
                with place.open("rb") as file:
                    ours = file.read(len(MARKER)) in (MARKER, ENCRYPTED)
            elif EARLIER.fullmatch(place.name):
                ours = blake3(place.read_bytes()).hexdigest() == place.name
            else:
                return False
            self._ours[place.name] = ours
        return ours

    def _images(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and place of every image. Deletes drafts that were left by a process that died."""
        for place in self.path.iterdir():
            with suppress(OSError):
                facts = place.stat()
                if self._is_ours(place):
                    yield facts.st_mtime, facts.st_size, place
                elif place.name.startswith(DRAFT) and facts.st_mtime < time.time() - DRAFT_SECONDS:
                    place.unlink()


def _digest(image_id: str) -> bytes:
    """The digest in an image id. Raises ImageError."""
    digest = image_id.removeprefix(PREFIX)
    # Ids come from the messages of the caller: none may lead out of the folder.
    if not EARLIER.fullmatch(digest):
        raise ImageError(f"{image_id[:80]!r} is not an image id.")
    return bytes.fromhex(digest)


def _read(place: Path) -> bytes | None:
    """The content of a file; None where there is none. Raises ImageError."""
    try:
        return place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(f"its file cannot be read ({error.strerror}).") from error


def _mark_used(place: Path) -> None:
    # The folder may be readable only, or another process may have deleted the file.
    with suppress(OSError):
        os.utime(place)
