"""Redis and Valkey. The only file that touches redis-py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from kamera_agent.errors import MissingExtraError
from kamera_agent.store.remote.medium import PART_BYTES, Blob

# Of a request that nobody waits for any longer.
SOCKET_S = 10.0
PAGE = 1000


class RedisMedium:
    """A database of a server: a key for each name, and a set for each folder. See Medium.

    url: as redis-py takes it. address: without a password. prefix: what all keys begin with.
    ttl_s: how long the server keeps a key after it was written; None leaves that to the server.

    Raises MissingExtraError where the package is missing. Connects at the first request.
    """

    # One request, that is.
    load_bytes = PART_BYTES

    def __init__(self, url: str, address: str, prefix: str, ttl_s: int | None) -> None:
        if find_spec("redis") is None:
            raise MissingExtraError("A store in Redis", "redis", "redis")
        from redis import Redis, RedisError
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.address = address
        self.errors: tuple[type[Exception], ...] = (RedisError, OSError)
        self._prefix = f"{prefix}:"
        self._ttl_s = ttl_s
        # A request that failed is not made again: whoever waits for it would wait longer.
        self._client: Any = Redis.from_url(
            url, socket_timeout=SOCKET_S, socket_connect_timeout=SOCKET_S, retry=Retry(NoBackoff(), 0)
        )

    def get(self, names: Sequence[str]) -> list[Blob | None]:
        found: list[Blob | None] = self._client.mget(self._keys(names)) if names else []
        return found

    def put(self, blobs: Mapping[str, Blob]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for name, blob in blobs.items():
                pipeline.set(self._prefix + name, blob, ex=self._ttl_s)
            pipeline.execute()

    def delete(self, names: Sequence[str]) -> None:
        if names:
            self._client.unlink(*self._keys(names))

    def members(self, folders: Sequence[str]) -> list[list[str]]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key in self._keys(folders):
                pipeline.smembers(key)
            return [[member.decode("ascii", "replace") for member in members] for members in pipeline.execute()]

    def add(self, folder: str, member: str) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.sadd(self._prefix + folder, member)
            if self._ttl_s is not None:
                pipeline.expire(self._prefix + folder, self._ttl_s)
            pipeline.execute()

    def remove(self, folder: str, members: Sequence[str]) -> None:
        if members:
            self._client.srem(self._prefix + folder, *members)

    def survey(self, root: str) -> Iterator[tuple[str, int]]:
        cursor, pattern = None, _escaped(self._prefix + root) + "*"
        while cursor != 0:
            cursor, keys = self._client.scan(cursor or 0, pattern, PAGE, _type="string")
            with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.strlen(key)
                sizes = pipeline.execute()
            for key, size in zip(keys, sizes, strict=True):
                yield key.decode("ascii", "replace")[len(self._prefix) :], size

    def close(self) -> None:
        self._client.close()

    def _keys(self, names: Sequence[str]) -> list[str]:
        return [self._prefix + name for name in names]


def _escaped(text: str) -> str:
    """A pattern that matches a text and nothing else."""
    return "".join(f"\\{sign}" if sign in "*?[]^\\" else sign for sign in text)
