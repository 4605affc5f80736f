"""Shared tiers by their URL."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from kamera_agent.errors import SettingError
from kamera_agent.secret import SecretSource, read_secret
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.remote.medium import Medium
from kamera_agent.store.remote.objects import ObjectMedium
from kamera_agent.store.remote.redis import RedisMedium
from kamera_agent.store.remote.store import RemoteStore

REDIS = ("redis", "rediss", "unix")
OBJECTS = ("s3", "gs", "az", "file")
DEFAULT_PREFIX = "kamera"
VARIABLE = "env:"


def open_shared(text: str, timeout_s: float, key: SecretSource | None = None) -> RemoteStore:
    """The shared tier of a URL. Nobody is asked yet, so one that is gone is opened, too.

    redis://, rediss:// (TLS) and unix:// with the options prefix (of all keys, "kamera") and ttl_s (how long a key
    stays; by default as the server decides), and those of redis-py. s3://, gs://, az:// and file:// have none: the
    environment configures them, as obstore takes it.

    timeout_s, key: as of RemoteStore and Settings.encryption_key.
    Raises SettingError for a URL that cannot be used, and MissingExtraError where a package is missing.
    """
    url = _variable(text) if text.startswith(VARIABLE) else text
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise SettingError(f"The URL of a shared store is not one: {error}.") from error
    # Before a connection could be opened.
    cipher = None if key is None else Cipher(read_secret("encryption_key", key))
    return RemoteStore(_medium(url, parts), timeout_s, cipher)


def _medium(url: str, parts: SplitResult) -> Medium:
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme in REDIS:
        options = dict(parse_qsl(parts.query))
        prefix, ttl_s = options.pop("prefix", DEFAULT_PREFIX), _ttl_s(options)
        return RedisMedium(parts._replace(query=urlencode(options)).geturl(), address, prefix, ttl_s)
    if parts.scheme in OBJECTS:
        if parts.query or "@" in parts.netloc:
            raise SettingError(f"The URL of {address} has options; set them in the environment, as obstore takes them.")
        return ObjectMedium(url, address)
    raise SettingError(f"No store is known by {parts.scheme}://; use {', '.join((*REDIS, *OBJECTS))}, or a folder.")


def _ttl_s(options: dict[str, str]) -> int | None:
    text = options.pop("ttl_s", None)
    if text is not None and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingError(f"ttl_s is {text[:40]!r}; use a whole number of seconds above 0.")
    return None if text is None else int(text)


def _variable(text: str) -> str:
    name = text.removeprefix(VARIABLE)
    if "://" not in (url := os.environ.get(name, "")):
        raise SettingError(f"store is {text!r}, and the environment variable {name} holds no URL; set it.")
    return url
