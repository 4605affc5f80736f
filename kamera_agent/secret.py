"""Secrets of 32 bytes that a program names, and that are read when they are used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kamera_agent.errors import SettingError
from kamera_agent.options import path_of

SECRET_BYTES = 32
ENVIRONMENT = "env:"
# Somebody may name a device that never ends.
MAX_FILE = 1000

# "env:NAME" is a variable of the environment; any other text, or a path, is a file. Both hold 64 hexadecimal digits. A
# function returns the bytes.
SecretSource = str | os.PathLike[str] | Callable[[], bytes]


def source_of(name: str, value: Any) -> str | Callable[[], bytes]:
    """The source of a secret, of which nothing is read yet. name: of the option. Raises SettingError."""
    return value if callable(value) else path_of(name, value)


def read_secret(name: str, source: SecretSource) -> bytes:
    """The 32 bytes of a secret. name: of the option. Raises SettingError, whose message never holds the secret."""
    source = source_of(name, source)
    if callable(source):
        returned: object = source()
        if not isinstance(returned, bytes) or len(returned) != SECRET_BYTES:
            raise SettingError(f"The function given as {name} returned no bytes object of {SECRET_BYTES} bytes.")
        return returned
    if source.startswith(ENVIRONMENT):
        place, text = f"The environment variable {source.removeprefix(ENVIRONMENT)}", _variable(name, source)
    else:
        place, text = f"The file {source}", _content(name, source)
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise SettingError(
            f"{place}, given as {name}, does not hold {2 * SECRET_BYTES} hexadecimal digits; make them with "
            "`openssl rand -hex 32`."
        )
    return secret


def _variable(name: str, source: str) -> str:
    variable = source.removeprefix(ENVIRONMENT)
    if variable not in os.environ:
        raise SettingError(f"{name} is {source!r}, and there is no environment variable {variable}; set it.")
    return os.environ[variable]


def _content(name: str, source: str) -> str:
    try:
        with Path(source).expanduser().open(encoding="utf-8") as file:
            return file.read(MAX_FILE)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingError(f"{name} is {source!r}, and that file cannot be read: {reason}.") from error
