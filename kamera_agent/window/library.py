"""The library of a Kamera: finds bases and patches, and remembers new ones in the background."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from time import monotonic

import torch

from kamera_agent.antecedents import Antecedents, link
from kamera_agent.chunk import Chunk, Key, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import StoreClosedError
from kamera_agent.forking import Forkable
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kept import Kept
from kamera_agent.store.base import Store
from kamera_agent.window.evidence import Evidence
from kamera_agent.window.records import Computed, Loaded, Records
from kamera_agent.window.worker import Job, Worker

# Answers go first, but an answer that nobody reads to its end must not stop the worker for good.
PATIENCE_S = 5.0


class _Patience:
    """Waits for answers, for at most PATIENCE_S seconds in all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left_s = PATIENCE_S

    def give_way(self) -> None:
        """Wait until no answer is being computed, or patience is at its end."""
        start = monotonic()
        self._engine.wait_idle(self._left_s)
        self._left_s -= monotonic() - start


class Library(Forkable):
    """Chunks computed earlier, and a worker thread that hands new ones to the store.

    num_skipped: computed chunks that were not remembered, because too much KV waited or the Kamera was closed.
    """

    def __init__(self, engine: Engine, store: Store, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        decoder = engine.family.decoder
        self._records = Records(store, settings, len(decoder.key_modules), decoder.device)
        self._worker = Worker("kamera-remember")
        self._closed = False
        self.num_skipped = 0
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def num_failed(self) -> int:
        """Computed chunks that were not remembered because of an unexpected error, the first of which was logged."""
        return self._worker.num_failed

    def evidence(self, chunk: Key) -> list[Evidence]:
        """The KV that the store can give of a chunk, by headers alone. Raises StoreClosedError after close()."""
        self.require_open()
        return self._records.evidence(chunk)

    def expect(self, chunks: Sequence[Key]) -> None:
        """Tell the store what a turn is going to ask for, in this thread. Raises StoreClosedError after close()."""
        self.require_open()
        self._records.expect(chunks)

    def load(self, wanted: Sequence[Evidence]) -> list[Loaded | None]:
        """Read the records of evidence in one call; None where anything is missing, damaged or replaced."""
        return self._records.load(wanted)

    def remember(self, chunk: Chunk, conditioned: Kept, seen: Antecedents) -> Job | None:
        """Have the worker store a computed chunk: as its base, or as a patch over the base that the store has.

        Returns at once. The worker starts when no answer is being computed, and makes way for one between the layers of
        a patch; it waits PATIENCE_S seconds at most.

        conditioned: what the layers keep of the chunk; the library takes it over.
        Returns a job whose result is the bytes handed to the store. Returns None where the chunk is skipped: after
        close(), and when more KV than settings.memory_bytes would wait for the worker.
        """
        num_bytes = conditioned.num_bytes
        with self._lock:
            if self._closed or not self._worker.has_room(num_bytes, self._settings.memory_bytes):
                self.num_skipped += 1
                return None
            self._records.share_texts(seen)
            job = Job(partial(self._write_down, chunk, Computed(conditioned, seen)), num_bytes)
            self._worker.submit(job)
            return job

    def flush(self) -> None:
        """Return once everything computed so far has been handed to the store. Raises StoreClosedError."""
        self.require_open()
        self._worker.drain()

    def close(self) -> None:
        """Finish the waiting chunks and take no more. Idempotent."""
        # Under the lock, so that the worker has no job after this.
        with self._lock:
            self._closed = True
        self._worker.drain()

    def require_open(self) -> None:
        """Raise StoreClosedError after close()."""
        if self._closed:
            raise StoreClosedError("This Kamera was closed; make a new one.")

    @torch.no_grad()
    def _write_down(self, chunk: Chunk, computed: Computed) -> int:
        """Store a chunk; returns the bytes handed over, 0 where the store already has KV as good."""
        give_way = _Patience(self._engine).give_way
        give_way()
        return self._records.write_down(chunk.key, computed, give_way, partial(self._canonical, chunk))

    def _canonical(self, chunk: Chunk) -> Computed:
        """The KV of a chunk that follows the anchor alone."""
        anchor = link(b"", TextRun(self._engine.family.chat.anchor_ids))
        return Computed(self._engine.canonical(chunk), Antecedents(chain=anchor))
