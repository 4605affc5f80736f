"""A bound on the work that a schema may cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kamera_agent.errors import InputError

# Parts of schemas that are looked at for one reply: about a second's work. A tool of 20 parameters takes 1,500; where
# definitions refer to each other in several ways, each level of them may take twice as many as the one below.
MAX_PARTS = 1_000_000


class Effort:
    """Counts what is looked at of the schemas of one reply, each part as often as it is looked at."""

    def __init__(self) -> None:
        self._num_left = MAX_PARTS

    def spend(self, num_parts: int) -> None:
        """Count parts. Raises InputError where there are too many."""
        self._num_left -= num_parts
        if self._num_left < 0:
            raise InputError(
                f"This schema cannot be enforced: with its references followed, it has more than {MAX_PARTS:,} parts; "
                "use fewer parts, or definitions that refer to each other in fewer ways."
            )

    def look(self, schema: Any) -> None:
        """Count a schema without the schemas in it: its keywords, and the texts and lists that they hold."""
        if isinstance(schema, Mapping):
            self.spend(1 + sum(_size(value) for value in schema.values()))


def _size(value: Any) -> int:
    return 1 + len(value) // 16 if isinstance(value, str) else 1 + len(value) if isinstance(value, Sequence) else 1
