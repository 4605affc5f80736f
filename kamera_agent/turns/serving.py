"""What answers for a chat model: a Kamera with live windows and grammars."""

from __future__ import annotations

import threading
from typing import NamedTuple

from kamera_agent.errors import StoreClosedError
from kamera_agent.kamera import Kamera
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.turns.conversations import Conversations
from kamera_agent.turns.grammar import Grammars
from kamera_agent.turns.loans import Loan
from kamera_agent.turns.source import Options


class Live(NamedTuple):
    """A Kamera at work, and what one chat model has over it."""

    kamera: Kamera
    conversations: Conversations
    grammars: Grammars


class Serving:
    """Opens when it is first needed, once. Safe for use from several threads."""

    def __init__(
        self,
        kamera: Kamera | None,
        model: str,
        options: Options,
        *,
        max_windows: int,
        max_bytes: int,
        max_string: int | None,
        metrics: Metrics | None,
    ) -> None:
        """kamera: None borrows that of the model. The bounds: see Conversations and Grammars."""
        self._kamera, self._model, self._options = kamera, model, options
        self._max_windows, self._max_bytes, self._max_string = max_windows, max_bytes, max_string
        self._metrics = metrics
        self._loan: Loan | None = None
        self._live: Live | None = None
        self._closed = False
        self._lock = threading.Lock()

    def open(self) -> Live:
        """What answers. Raises what Loan raises, and StoreClosedError after close()."""
        with self._lock:
            self.require_open()
            if self._live is None:
                self._live = self._start(self._kamera or self._borrow())
            return self._live

    def require_open(self) -> None:
        """Raise StoreClosedError after close()."""
        if self._closed:
            raise StoreClosedError("This chat model was closed; make a new one.")

    def close(self) -> None:
        """Let the windows go and give back what was borrowed. Idempotent."""
        with self._lock:
            self._closed, self._live = True, None
            if self._loan:
                self._loan.close()

    def _borrow(self) -> Kamera:
        self._loan = Loan(self._model, self._options)
        return self._loan.kamera

    def _start(self, kamera: Kamera) -> Live:
        if self._metrics:
            self._metrics.watch(kamera, self._model)
        return Live(
            kamera,
            Conversations(kamera, self._max_windows, self._max_bytes),
            Grammars(kamera.family.processors.tokenizer, self._max_string),
        )
