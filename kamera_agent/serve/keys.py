"""The keys of clients, and the namespaces that they open."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from pathlib import Path
from typing import Self

from blake3 import blake3

from kamera_agent.errors import SettingError

# Shorter ones could be guessed, from the names of the namespaces as well.
MIN_CHARACTERS = 16
CONTEXT = "kamera_agent serve 2026-11-28 namespace of a key"


class Keys:
    """Keys and the namespace of each. Only clients with the same namespace share chunks and conversations."""

    def __init__(self, namespaces: Mapping[str, str]) -> None:
        """namespaces: by key. Raises SettingError for a key that is short or has other characters than ASCII."""
        for number, key in enumerate(namespaces, start=1):
            if len(key) < MIN_CHARACTERS or not (key.isascii() and key.isprintable()):
                raise SettingError(
                    f"Key {number} of {len(namespaces)} is no text of at least {MIN_CHARACTERS} ASCII characters; make "
                    "one with `openssl rand -hex 32`."
                )
        self._namespaces = {key.encode(): namespace for key, namespace in namespaces.items()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The keys of a file, one per line; a name after a key is that of its namespace, else the key has its own.

        Lines that are empty or begin with # are left out. Raises SettingError, whose message holds no key.
        """
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingError(f"The file of API keys {path} cannot be read: {reason}.") from error
        namespaces: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 2 or words[0] in namespaces:
                problem = "has more than a key and a namespace" if len(words) > 2 else "repeats a key"
                raise SettingError(f"Line {number} of the file of API keys {path} {problem}.")
            namespaces[words[0]] = words[1] if len(words) == 2 else _own_namespace(words[0])
        if not namespaces:
            raise SettingError(f"The file of API keys {path} has none; write one per line.")
        return cls(namespaces)

    def namespace(self, key: str) -> str | None:
        """The namespace of a key; None for an unknown one. Takes the same time for every key of the same length."""
        found, given = None, key.encode("utf-8", "replace")
        for known, namespace in self._namespaces.items():
            if compare_digest(known, given):
                found = namespace
        return found


def _own_namespace(key: str) -> str:
    return f"key-{blake3(key.encode(), derive_key_context=CONTEXT).hexdigest(8)}"
