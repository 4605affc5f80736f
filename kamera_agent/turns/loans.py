"""One Kamera for all chat models of the same model, so that its weights lie in memory once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from kamera_agent.errors import SettingError
from kamera_agent.kamera import Kamera
from kamera_agent.pocket.weights import POCKET, WEIGHTS
from kamera_agent.turns.source import Options

# A process, where a checkpoint lies, and its revision. After a fork a child loads its own.
Key = tuple[int, str, str | None]


@dataclass(eq=False)
class _Shared:
    kamera: Kamera
    options: Options
    loans: WeakSet[Loan] = field(default_factory=WeakSet)


# Which weights lie in memory is a fact of the process. What nobody holds any more goes, closed or not.
_lock = threading.Lock()
_living: WeakValueDictionary[Key, _Shared] = WeakValueDictionary()


class Loan:
    """A Kamera that is used together with others. Its last user closes it."""

    def __init__(self, model: str, options: Options) -> None:
        """Take the Kamera of a model, which is loaded for its first user. options: of Kamera.from_pretrained.

        Raises SettingError where the model is loaded with other options, and what Kamera.from_pretrained raises.
        """
        self._key = _key(model, options)
        with _lock:
            shared = _living.get(self._key)
            if shared is None:
                shared = _living[self._key] = _Shared(Kamera.from_pretrained(model, **options), options)
            if shared.options != options:
                raise SettingError(
                    f"{model!r} is loaded in this process with model_kwargs={shared.options}, not {options}. Give the "
                    "same, or close the chat models that use it; a second copy takes a Kamera of your own (kamera=)."
                )
            shared.loans.add(self)
        self._shared = shared

    @property
    def kamera(self) -> Kamera:
        """The Kamera; it belongs to all of its users."""
        return self._shared.kamera

    def close(self) -> None:
        """Give it back. Idempotent."""
        with _lock:
            if self not in self._shared.loans:
                return
            self._shared.loans.remove(self)
            if not self._shared.loans:
                del _living[self._key]
                self._shared.kamera.close()


def _key(model: str, options: Mapping[str, Any]) -> Key:
    folder = os.fspath(WEIGHTS) if model == POCKET else model
    place = os.path.realpath(folder) if os.path.isdir(folder) else model
    return os.getpid(), place, options.get("revision")
