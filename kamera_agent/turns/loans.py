"""One Kamera for all chats of the same model, so its weights are in memory once."""

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

# Process id, checkpoint, and revision. A forked child loads its own: threads and locks stay with the parent.
Key = tuple[int, str, str | None]


@dataclass(eq=False)
class _Shared:
    """The Kamera of one model, its options and its borrowers. kamera: None until it is loaded, and after close()."""

    kamera: Kamera | None = None
    options: Options = field(default_factory=dict)
    loans: WeakSet[Loan] = field(default_factory=WeakSet)
    # Held while the model loads or closes: others that want this model wait, those of other models do not.
    lock: threading.Lock = field(default_factory=threading.Lock)


# Global, because the weights are in the memory of the process. Weak, so that a Kamera goes with its last borrower even
# if nobody calls close().
_all_shared: WeakValueDictionary[Key, _Shared] = WeakValueDictionary()
_all_shared_lock = threading.Lock()


class Loan:
    """A Kamera that is used together with others. Its last user closes it."""

    def __init__(self, model: str, options: Options) -> None:
        """Borrow the Kamera of a model; the first borrower loads it. options: of Kamera.from_pretrained.

        Raises SettingError where the model is loaded with other options, and what Kamera.from_pretrained raises.
        """
        key = _key(model, options)
        with _all_shared_lock:
            self._shared = _all_shared.setdefault(key, _Shared())
        with self._shared.lock:
            if self._shared.kamera is None:
                self._shared.kamera, self._shared.options = Kamera.from_pretrained(model, **options), options
            elif self._shared.options != options:
                raise SettingError(
                    f"{model!r} is loaded in this process with model_kwargs={self._shared.options}, not {options}. "
                    "Give the same options, or close the chat models that use it. For a second copy, make a Kamera "
                    "and pass it as kamera=."
                )
            self.kamera = self._shared.kamera
            self._shared.loans.add(self)

    def close(self) -> None:
        """Give the Kamera back. Idempotent."""
        with self._shared.lock:
            if self not in self._shared.loans:
                return
            self._shared.loans.remove(self)
            if not self._shared.loans:
                self._shared.kamera = None
                self.kamera.close()


def _key(model: str, options: Mapping[str, Any]) -> Key:
    folder = os.fspath(WEIGHTS) if model == POCKET else model
    place = os.path.realpath(folder) if os.path.isdir(folder) else model
    return os.getpid(), place, options.get("revision")
