"""The library of a Kamera: finds canonical KV and patches, and remembers new ones in the background."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from kamera_agent.chunk import Antecedents, Chunk, Header, Key, Record
from kamera_agent.config import DEFAULT_RANK, Settings
from kamera_agent.errors import StoreClosedError
from kamera_agent.forking import Forkable
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, on_device, tensors_of
from kamera_agent.runtime.kernels.reference import expanded
from kamera_agent.runtime.patch import Patch, fit
from kamera_agent.store.base import Store
from kamera_agent.window.plan import Grade
from kamera_agent.window.worker import Job, Worker

GRADES: tuple[Grade, ...] = ("ordered", "orbit", "survivor")
# Answers go first, but an answer that nobody reads to its end must not stop the worker for good.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Match:
    """A stored patch that fits a place in a window.

    grade: how the present antecedent chunks compare with those that the patch was fitted for. "ordered": the same
        chunks in the same order. "orbit": the same chunks in another order. "survivor": the same chunks in the same
        order, without some that have left; the chunk comes back as it would be if it had stayed in the window.
    text_match: share of the text runs before the chunk that are the same, 0 to 1.
    error: relative error of the truncated patch in the context it was fitted for.
    approximate: whether the patch was fitted over antecedents that were not exact.
    """

    key: Key
    grade: Grade
    text_match: float
    error: float
    approximate: bool


class Loaded(NamedTuple):
    """Canonical KV of a chunk and the factors of its patch (None without a patch), per layer, and their bytes."""

    canonical: tuple[LayerKV, ...]
    factors: tuple[Factors, ...] | None
    num_bytes: int


class Library(Forkable):
    """Chunks computed earlier, and a worker thread that hands new ones to the store.

    num_skipped: computed chunks that were not remembered, because too much KV waited or the Kamera was closed.
    """

    def __init__(self, engine: Engine, store: Store, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings
        self._worker = Worker("kamera-remember")
        self._closed = False
        self.num_skipped = 0
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def num_failed(self) -> int:
        """Computed chunks that were not remembered because of an unexpected error, which was logged."""
        return self._worker.num_failed

    def find(self, chunk: Chunk, antecedents: Antecedents) -> Match | None:
        """The best patch for a chunk after these antecedents, chosen by headers alone; None where none fits.

        Raises StoreClosedError after close().
        """
        self.require_open()
        return self._find(chunk, antecedents)

    def has_canonical(self, chunk: Chunk) -> bool:
        """Whether the chunk's canonical KV is in the store."""
        digest = self._canonical_key(chunk).digest
        return any(header.key.digest == digest for header in self._store.headers(chunk.digest))

    def load(self, wanted: Sequence[tuple[Chunk, Match | None]]) -> list[Loaded | None]:
        """Read chunks and their patches in one call; None for a chunk of which anything is missing or damaged."""
        canonical = [self._canonical_key(chunk) for chunk, _ in wanted]
        records = self._store.get_many([*canonical, *(match.key for _, match in wanted if match)])
        return [
            _join(records.get(key.digest), match, records) for key, (_, match) in zip(canonical, wanted, strict=True)
        ]

    def remember(self, chunk: Chunk, conditioned: tuple[LayerKV, ...], antecedents: Antecedents) -> Job | None:
        """Have the worker store a computed chunk: its canonical KV, and the patch for these antecedents.

        Returns at once. The worker starts when no answer is being computed, or after PATIENCE_S seconds.

        conditioned: the chunk's KV per layer; the library takes it over.
        Returns a job whose result is the bytes handed to the store. Returns None where the chunk is skipped: after
        close(), and when more KV than settings.memory_bytes would wait for the worker.
        """
        num_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in conditioned)
        with self._lock:
            # One chunk may always wait, however large: otherwise a small bound would keep every chunk out.
            waiting_bytes = self._worker.num_bytes
            full = waiting_bytes > 0 and waiting_bytes + num_bytes > self._settings.memory_bytes
            if self._closed or full:
                self.num_skipped += 1
                return None
            job = Job(partial(self._write_down, chunk, conditioned, antecedents), num_bytes)
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

    def _find(self, chunk: Chunk, antecedents: Antecedents) -> Match | None:
        headers = self._store.headers(chunk.digest)
        if self._canonical_key(chunk).digest not in (header.key.digest for header in headers):
            return None
        patches = [header for header in headers if header.kind == "patch"]
        matches = [match for header in patches if (match := self._match(header, antecedents))]
        return min(matches, key=_preference, default=None)

    def _canonical_key(self, chunk: Chunk) -> Key:
        """Key of the record of a chunk's canonical KV; each form that canonical KV is kept in has keys of its own."""
        if self._settings.canonical == "full":
            return chunk.key
        return Key.of(**{**json.loads(chunk.key.material), "canonical": self._settings.canonical})

    def _match(self, header: Header, antecedents: Antecedents) -> Match | None:
        facts = header.attributes
        if facts["rank"] != _rank_label(self._settings):
            return None
        fitted = Antecedents(
            tuple(map(bytes.fromhex, facts["chunks"])),
            tuple(map(bytes.fromhex, facts["texts"])),
            facts["approximate"],
        )
        grade = _grade(fitted, antecedents)
        if grade is None:
            return None
        return Match(header.key, grade, _text_match(fitted, antecedents), facts["error"], fitted.approximate)

    @torch.no_grad()
    def _write_down(self, chunk: Chunk, conditioned: tuple[LayerKV, ...], antecedents: Antecedents) -> int:
        """Store a chunk; returns the bytes handed over, 0 where the store already has a patch as good."""
        self._engine.wait_idle(PATIENCE_S)
        known = self._find(chunk, antecedents)
        if (
            known
            and known.grade == "ordered"
            and known.text_match == 1
            and known.approximate <= antecedents.approximate
        ):
            return 0
        loaded = self.load([(chunk, None)])[0]
        canonical = loaded.canonical if loaded else self._new_canonical(chunk)
        device = conditioned[0].keys.device
        patch = fit(conditioned, [expanded(on_device(layer, device)) for layer in canonical], self._settings)
        records = [_patch_record(chunk, patch, antecedents, self._settings)]
        if not loaded:
            key = self._canonical_key(chunk)
            records.append(Record.of(key, chunk.digest, "canonical", _record_layers(canonical)))
        self._store.put_many(records)
        return sum(record.header.num_bytes for record in records)

    def _new_canonical(self, chunk: Chunk) -> tuple[LayerKV, ...]:
        layers = self._engine.canonical(chunk)
        return tuple(map(compressed, layers)) if self._settings.canonical == "int8" else layers


def _join(canonical: Record | None, match: Match | None, records: Mapping[bytes, Record]) -> Loaded | None:
    patch = records.get(match.key.digest) if match else None
    if canonical is None or (match and patch is None):
        return None
    kv, num_bytes = tuple(LayerKV(*layer) for layer in canonical.layers), canonical.header.num_bytes
    if patch is None:
        return Loaded(kv, None, num_bytes)
    return Loaded(kv, tuple(Factors(*layer) for layer in patch.layers), num_bytes + patch.header.num_bytes)


def _patch_record(chunk: Chunk, patch: Patch, antecedents: Antecedents, settings: Settings) -> Record:
    """The record of a patch. Its key omits the texts, so the newest patch for the same chunks replaces older ones."""
    chunks = [digest.hex() for digest in antecedents.chunks]
    rank = _rank_label(settings)
    key = Key.of(kind="patch", chunk=chunk.digest.hex(), antecedents=chunks, rank=rank)
    attributes = {
        "rank": rank,
        "ranks": patch.ranks,
        "chunks": chunks,
        "texts": [digest.hex() for digest in antecedents.texts],
        "approximate": antecedents.approximate,
        "energy": patch.energy,
        "error": patch.error,
        "norm": patch.norm,
    }
    return Record.of(key, chunk.digest, "patch", _record_layers(patch.factors), attributes)


def _record_layers(layers: Sequence[LayerKV | Factors]) -> list[list[torch.Tensor]]:
    """The layers as a record keeps them: only the tensors that are present, contiguous, on the CPU."""
    return [[tensor.cpu().contiguous() for tensor in tensors_of(layer)] for layer in layers]


def _rank_label(settings: Settings) -> str:
    """The settings that a patch was fitted with; a patch of other settings does not fit."""
    over = "" if settings.canonical == "full" else f":{settings.canonical}"
    if settings.rank == "auto":
        return f"auto:{settings.error_budget}:{settings.byte_budget}{over}"
    return f"{settings.rank or DEFAULT_RANK}{over}"


def _grade(fitted: Antecedents, present: Antecedents) -> Grade | None:
    if fitted.chunks == present.chunks:
        return "ordered"
    if fitted.orbit == present.orbit:
        return "orbit"
    remaining = iter(fitted.chunks)
    return "survivor" if all(chunk in remaining for chunk in present.chunks) else None


def _text_match(fitted: Antecedents, present: Antecedents) -> float:
    same = len(set(fitted.texts) & set(present.texts))
    return same / max(len(set(fitted.texts) | set(present.texts)), 1) if fitted.texts != present.texts else 1.0


def _preference(match: Match) -> tuple[int, bool, float, float]:
    return GRADES.index(match.grade), match.approximate, -match.text_match, match.error
