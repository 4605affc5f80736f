"""The library of a Kamera: finds bases and patches, and remembers new ones in the background."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from kamera_agent.antecedents import Antecedents, Trail, link
from kamera_agent.chunk import Chunk, Header, Key, Record, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import StoreClosedError
from kamera_agent.forking import Forkable
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families.identity import NUM_SAMPLES, digest_tensors
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import Factors, on_device
from kamera_agent.runtime.kernels.reference import expanded
from kamera_agent.runtime.patch import Patch, fit
from kamera_agent.store.base import Store
from kamera_agent.window.evidence import Evidence, best_of, grade, text_match
from kamera_agent.window.worker import Job, Worker

# Answers go first, but an answer that nobody reads to its end must not stop the worker for good.
PATIENCE_S = 5.0


class Loaded(NamedTuple):
    """A base and the factors of a patch over its K and V (None without a patch), per layer, and their bytes."""

    base: Kept
    factors: tuple[Factors, ...] | None
    num_bytes: int


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
        self._store = store
        self._settings = settings
        self._worker = Worker("kamera-remember")
        # The texts of chains that a window or evidence still has.
        self._texts: WeakValueDictionary[bytes, Trail] = WeakValueDictionary()
        self._closed = False
        self.num_skipped = 0
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def num_failed(self) -> int:
        """Computed chunks that were not remembered because of an unexpected error, the first of which was logged."""
        return self._worker.num_failed

    def evidence(self, chunk: Chunk) -> list[Evidence]:
        """The KV that the store can give of a chunk, by headers alone. Raises StoreClosedError after close()."""
        self.require_open()
        return self._evidence(chunk)

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Tell the store what a turn is going to ask for, in this thread. Raises StoreClosedError after close()."""
        self.require_open()
        self._store.expect([chunk.digest for chunk in chunks])

    def load(self, wanted: Sequence[Evidence]) -> list[Loaded | None]:
        """Read the records of evidence in one call; None where anything is missing, damaged or replaced."""
        keys = [key for evidence in wanted for key in (evidence.base, evidence.patch) if key]
        records = self._store.get_many(keys)
        decoder = self._engine.family.decoder
        return [_join(evidence, records, len(decoder.key_modules), decoder.device) for evidence in wanted]

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
            # One chunk may always wait, however large: otherwise a small bound would keep every chunk out.
            waiting_bytes = self._worker.num_bytes
            full = waiting_bytes > 0 and waiting_bytes + num_bytes > self._settings.memory_bytes
            if self._closed or full:
                self.num_skipped += 1
                return None
            self._texts[seen.chain] = seen.texts
            job = Job(partial(self._write_down, chunk, conditioned, seen), num_bytes)
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

    def _evidence(self, chunk: Chunk) -> list[Evidence]:
        headers = self._store.headers(chunk.digest)
        base_key = self._base_key(chunk)
        base = next((header for header in headers if header.key.digest == base_key.digest), None)
        if base is None:
            return []
        seen = self._seen(base)
        whole = replace(seen, exact=seen.exact and self._settings.base_dtype == "full")
        found = [Evidence(whole, base_key, approximate=not seen.exact)]
        if self._settings.fidelity == "exact":
            return found
        rank = _rank_label(self._settings)
        for header in headers:
            facts = header.attributes
            # Of a base that was replaced, patches may be left.
            if header.base == base_key.digest and facts["rank"] == rank and facts["over"] == base.attributes["content"]:
                seen = self._seen(header)
                truncated = replace(seen, exact=False)
                found.append(Evidence(truncated, base_key, header.key, facts["error"], not seen.exact))
        return found

    def _seen(self, header: Header) -> Antecedents:
        """The antecedents of a record."""
        facts = header.attributes
        chunks, chain = tuple(map(bytes.fromhex, facts["chunks"])), bytes.fromhex(facts["chain"])
        texts = self._texts.get(chain)
        if texts is None:
            self._texts[chain] = texts = Trail.of(map(bytes.fromhex, facts["texts"]))
        return Antecedents(chunks, texts, chain, facts["exact"])

    def _base_key(self, chunk: Chunk) -> Key:
        """Key of a chunk's base; each kind of base, and each form that it is kept in, has keys of its own."""
        base, dtype = self._settings.base, self._settings.base_dtype
        if (base, dtype) == ("first", "full"):
            return chunk.key
        return Key.of(**{**json.loads(chunk.key.material), "base": base, "base_dtype": dtype})

    @torch.no_grad()
    def _write_down(self, chunk: Chunk, conditioned: Kept, seen: Antecedents) -> int:
        """Store a chunk; returns the bytes handed over, 0 where the store already has KV as good."""
        give_way = _Patience(self._engine).give_way
        give_way()
        known = self._evidence(chunk)
        best = best_of(known, seen) if known else None
        if best and _is_as_good(best, seen):
            return 0
        # Exact KV takes the place of a base that is not; patches over that one lose their use.
        if self._settings.base == "first" and (best is None or (seen.exact and known[0].approximate)):
            return self._put([self._base_record(chunk, conditioned, seen)])
        if self._settings.fidelity == "exact":
            return 0
        return self._put(self._patch_records(chunk, conditioned, seen, give_way))

    def _patch_records(
        self, chunk: Chunk, conditioned: Kept, seen: Antecedents, give_way: Callable[[], None]
    ) -> list[Record]:
        """The patch over the base that the store has; with the base where that is new."""
        key = self._base_key(chunk)
        stored = self._store.get_many([key]).get(key.digest)
        base = stored or self._new_base(chunk, conditioned, seen)
        known = Kept.of(base.layers, len(conditioned.kv), self._engine.family.decoder.device)
        pairs = zip(known.kv, conditioned.kv, strict=True)
        kv = [expanded(on_device(layer, ours.keys.device)) for layer, ours in pairs]
        # "auto" spends all bytes on attention.
        ours, theirs = ((), ()) if self._settings.rank == "auto" else (conditioned.singles, known.singles)
        # An answer that begins meanwhile would wait for its end: a GPU has one queue for both.
        fitted = fit([*conditioned.kv, *ours], [*kv, *theirs], self._settings, give_way)
        patch = _patch_record(chunk, base.header, conditioned, fitted, seen, self._settings)
        return [patch] if stored else [base, patch]

    def _new_base(self, chunk: Chunk, conditioned: Kept, seen: Antecedents) -> Record:
        """A base where the store has none, or has lost it."""
        if self._settings.base == "first":
            return self._base_record(chunk, conditioned, seen)
        anchor = link(b"", TextRun(self._engine.family.chat.anchor_ids))
        return self._base_record(chunk, self._engine.canonical(chunk), Antecedents(chain=anchor))

    def _base_record(self, chunk: Chunk, kept: Kept, seen: Antecedents) -> Record:
        if self._settings.base_dtype == "int8":
            kept = kept._replace(kv=tuple(map(compressed, kept.kv)))
        layers = _record_layers(kept.layers)
        # The samples change with every other computation of the chunk, however little it differs.
        named = {f"{number}.{part}": t for number, layer in enumerate(layers) for part, t in enumerate(layer)}
        attributes = {**_facts(seen), "content": digest_tensors(named, NUM_SAMPLES)}
        return Record.of(self._base_key(chunk), chunk.digest, "base", layers, attributes)

    def _put(self, records: Sequence[Record]) -> int:
        self._store.put_many(records)
        return sum(record.header.num_bytes for record in records)


def _join(evidence: Evidence, records: Mapping[bytes, Record], num_kv: int, device: torch.device) -> Loaded | None:
    """What a chunk is rebuilt from. num_kv, device: as of Kept.of()."""
    assert evidence.base
    base = records.get(evidence.base.digest)
    patch = records.get(evidence.patch.digest) if evidence.patch else None
    if base is None or (evidence.patch and patch is None):
        return None
    kept, num_bytes = Kept.of(base.layers, num_kv, device), base.header.num_bytes
    if patch is None:
        # Another process may have replaced the base since it was found.
        chain, exact = base.header.attributes["chain"], base.header.attributes["exact"]
        fits = chain == evidence.seen.chain.hex() and (exact or not evidence.seen.exact)
        return Loaded(kept, None, num_bytes) if fits else None
    if patch.header.attributes["over"] != base.header.attributes["content"]:
        return None
    factors = tuple(Factors(*layer) for layer in patch.layers[:num_kv])
    return Loaded(kept.retraced(patch.layers[num_kv:]), factors, num_bytes + patch.header.num_bytes)


def _is_as_good(known: Evidence, seen: Antecedents) -> bool:
    """Whether stored KV makes new KV, computed after `seen`, superfluous."""
    fits = grade(known.seen, seen) in ("chain", "ordered") and text_match(known.seen, seen) == 1
    return fits and (not known.approximate or not seen.exact)


def _patch_record(
    chunk: Chunk, base: Header, conditioned: Kept, patch: Patch, seen: Antecedents, settings: Settings
) -> Record:
    """The record of a patch. Its key omits the texts, so the newest patch for the same chunks replaces older ones."""
    facts, rank = _facts(seen), _rank_label(settings)
    key = Key.of(kind="patch", base=base.key.digest.hex(), antecedents=facts["chunks"], rank=rank)
    attributes = {
        **facts,
        "rank": rank,
        "ranks": patch.ranks,
        "over": base.attributes["content"],
        "energy": patch.energy,
        "error": patch.error,
        "norm": patch.norm,
    }
    layers = _record_layers(conditioned.patch_layers(patch.factors))
    return Record.of(key, chunk.digest, "patch", layers, attributes, base.key.digest)


def _facts(seen: Antecedents) -> dict[str, Any]:
    """Antecedents as the attributes of a record."""
    chunks, texts = ([digest.hex() for digest in digests] for digests in (seen.chunks, seen.texts))
    return {"chunks": chunks, "texts": texts, "chain": seen.chain.hex(), "exact": seen.exact}


def _record_layers(layers: Sequence[Sequence[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """The tensors of each layer as a record keeps them: contiguous, on the CPU."""
    return [[tensor.cpu().contiguous() for tensor in tensors] for tensors in layers]


def _rank_label(settings: Settings) -> str:
    """The settings that a patch was fitted with; a patch of other settings does not fit."""
    if settings.rank == "auto":
        return f"auto:{settings.error_budget}:{settings.byte_budget}"
    return str(settings.rank)
