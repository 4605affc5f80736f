"""Object storage: S3, Google Cloud Storage, Azure, and folders. The only file that touches obstore."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from kamera_agent.errors import MissingExtraError, SettingError
from kamera_agent.store.remote.medium import PART_BYTES, Blob, first_line

# Requests at once.
MOST = 32

T = TypeVar("T")
S = TypeVar("S")


class ObjectMedium:
    """A bucket, or a part of it: an object for each name, and an empty one for each member of a folder. See Medium.

    url: as obstore takes it, with options from the environment. address: for messages.

    Raises MissingExtraError where the package is missing, and SettingError for a URL or an option that it refuses.
    Connects at the first request.
    """

    load_bytes = MOST * PART_BYTES

    def __init__(self, url: str, address: str) -> None:
        if find_spec("obstore") is None:
            raise MissingExtraError("A store in object storage", "obstore", "objects")
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.address = address
        self._obstore: Any = obstore
        self.errors: tuple[type[Exception], ...] = (BaseError, OSError)
        options: dict[str, Any] = {"retry_config": {"max_retries": 1}}
        if url.startswith("file:"):
            options = {"mkdir": True, "automatic_cleanup": True}
        try:
            self._store: Any = from_url(url, **options)
        except (*self.errors, ValueError) as error:
            raise SettingError(f"The store {address} cannot be opened: {first_line(error)}.") from error

    def get(self, names: Sequence[str]) -> list[Blob | None]:
        return _at_once(self._get, names)

    def put(self, blobs: Mapping[str, Blob]) -> None:
        _at_once(self._put, list(blobs.items()))

    def delete(self, names: Sequence[str]) -> None:
        _at_once(self._delete, names)

    def members(self, folders: Sequence[str]) -> list[list[str]]:
        return _at_once(self._members, folders)

    def add(self, folder: str, member: str) -> None:
        self.put({f"{folder}/{member}": b""})

    def remove(self, folder: str, members: Sequence[str]) -> None:
        self.delete([f"{folder}/{member}" for member in members])

    def survey(self, root: str) -> Iterator[tuple[str, int]]:
        for page in self._obstore.list(self._store, root, chunk_size=1000):
            yield from ((each["path"], each["size"]) for each in page)

    def close(self) -> None:
        """Nothing: a client closes its connections when it is dropped."""

    async def _get(self, name: str) -> Blob | None:
        try:
            found = await self._obstore.get_async(self._store, name)
            return memoryview(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def _put(self, item: tuple[str, Blob]) -> None:
        await self._obstore.put_async(self._store, item[0], item[1], use_multipart=False)

    async def _delete(self, name: str) -> None:
        try:
            await self._obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return

    async def _members(self, folder: str) -> list[str]:
        listed = await self._obstore.list_with_delimiter_async(self._store, folder)
        return [each["path"].rpartition("/")[2] for each in listed["objects"]]


def _at_once(request: Callable[[S], Coroutine[Any, Any, T]], arguments: Sequence[S]) -> list[T]:
    """The results of a request for each argument, MOST of them at a time."""

    async def gather() -> list[T]:
        turns = asyncio.Semaphore(MOST)

        async def take_turn(argument: S) -> T:
            async with turns:
                return await request(argument)

        return await asyncio.gather(*map(take_turn, arguments))

    return asyncio.run(gather()) if arguments else []
