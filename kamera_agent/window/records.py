"""The records of chunks in a store: what they give, and how new KV is written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from kamera_agent.antecedents import Antecedents, Trail
from kamera_agent.chunk import Header, Key, Record
from kamera_agent.config import Settings
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.families.identity import NUM_SAMPLES, digest_tensors
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import Factors, on_device
from kamera_agent.runtime.kernels.reference import expanded
from kamera_agent.runtime.patch import Patch, fit
from kamera_agent.store.base import Store
from kamera_agent.window.evidence import Evidence, best_of, grade, text_match


class Loaded(NamedTuple):
    """A base and the factors of a patch over its K and V (None without a patch), per layer, and their bytes."""

    base: Kept
    factors: tuple[Factors, ...] | None
    num_bytes: int


class Computed(NamedTuple):
    """What the layers keep of a chunk, and what it was computed after."""

    kept: Kept
    seen: Antecedents


class Records:
    """The records of one model's chunks. A chunk is named by its key.

    num_kv: number of layers that keep K and V. device: for what recurrent layers keep.
    """

    def __init__(self, store: Store, settings: Settings, num_kv: int, device: torch.device) -> None:
        self._store = store
        self._settings = settings
        self._num_kv = num_kv
        self._device = device
        # The texts of chains that a window or evidence still has.
        self._texts: WeakValueDictionary[bytes, Trail] = WeakValueDictionary()

    def share_texts(self, seen: Antecedents) -> None:
        """Have evidence of this chain share its texts, as long as somebody holds them."""
        self._texts[seen.chain] = seen.texts

    def expect(self, chunks: Sequence[Key]) -> None:
        """Tell the store what a turn is going to ask for, in this thread."""
        self._store.expect([chunk.digest for chunk in chunks])

    def evidence(self, chunk: Key) -> list[Evidence]:
        """The KV that the store can give of a chunk, by headers alone."""
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

    def load(self, wanted: Sequence[Evidence]) -> list[Loaded | None]:
        """Read the records of evidence in one call; None where anything is missing, damaged or replaced."""
        keys = [key for evidence in wanted for key in (evidence.base, evidence.patch) if key]
        records = self._store.get_many(keys)
        return [self._join(evidence, records) for evidence in wanted]

    def has(self, chunk: Key, seen: Antecedents) -> bool:
        """Whether stored KV makes KV of a chunk that was computed after `seen` superfluous."""
        return _are_as_good(self.evidence(chunk), seen)

    def write_down(
        self, chunk: Key, computed: Computed, give_way: Callable[[], None], canonical: Callable[[], Computed]
    ) -> int:
        """Store KV of a chunk: as its base, or as a patch over the base that the store has.

        give_way: called before anything that takes time. canonical: computes the base of base="canonical"; called where
            the store has none.
        Returns the bytes handed over, 0 where the store already has KV as good.
        """
        known, seen = self.evidence(chunk), computed.seen
        if _are_as_good(known, seen):
            return 0
        # Exact KV takes the place of a base that is not; patches over that one lose their use.
        if self._settings.base == "first" and (not known or (seen.exact and known[0].approximate)):
            return self._put([self._base_record(chunk, computed)])
        if self._settings.fidelity == "exact":
            return 0
        return self._put(self._patch_records(chunk, computed, give_way, canonical))

    def _seen(self, header: Header) -> Antecedents:
        """The antecedents of a record."""
        facts = header.attributes
        chunks, chain = tuple(map(bytes.fromhex, facts["chunks"])), bytes.fromhex(facts["chain"])
        texts = self._texts.get(chain)
        if texts is None:
            self._texts[chain] = texts = Trail.of(map(bytes.fromhex, facts["texts"]))
        return Antecedents(chunks, texts, chain, facts["exact"])

    def _base_key(self, chunk: Key) -> Key:
        """Key of a chunk's base; each kind of base, and each form that it is kept in, has keys of its own."""
        base, dtype = self._settings.base, self._settings.base_dtype
        if (base, dtype) == ("first", "full"):
            return chunk
        return Key.of(**{**json.loads(chunk.material), "base": base, "base_dtype": dtype})

    def _join(self, evidence: Evidence, records: Mapping[bytes, Record]) -> Loaded | None:
        """What a chunk is rebuilt from."""
        assert evidence.base
        base = records.get(evidence.base.digest)
        patch = records.get(evidence.patch.digest) if evidence.patch else None
        if base is None or (evidence.patch and patch is None):
            return None
        kept, num_bytes = Kept.of(base.layers, self._num_kv, self._device), base.header.num_bytes
        if patch is None:
            # Another process may have replaced the base since it was found.
            chain, exact = base.header.attributes["chain"], base.header.attributes["exact"]
            fits = chain == evidence.seen.chain.hex() and (exact or not evidence.seen.exact)
            return Loaded(kept, None, num_bytes) if fits else None
        if patch.header.attributes["over"] != base.header.attributes["content"]:
            return None
        factors = tuple(Factors(*layer) for layer in patch.layers[: self._num_kv])
        return Loaded(kept.retraced(patch.layers[self._num_kv :]), factors, num_bytes + patch.header.num_bytes)

    def _patch_records(
        self, chunk: Key, computed: Computed, give_way: Callable[[], None], canonical: Callable[[], Computed]
    ) -> list[Record]:
        """The patch over the base that the store has; with the base where that is new."""
        key, conditioned = self._base_key(chunk), computed.kept
        stored = self._store.get_many([key]).get(key.digest)
        first = self._settings.base == "first"
        base = stored or self._base_record(chunk, computed if first else canonical())
        known = Kept.of(base.layers, self._num_kv, self._device)
        pairs = zip(known.kv, conditioned.kv, strict=True)
        kv = [expanded(on_device(layer, ours.keys.device)) for layer, ours in pairs]
        # "auto" spends all bytes on attention.
        ours, theirs = ((), ()) if self._settings.rank == "auto" else (conditioned.singles, known.singles)
        # An answer that begins meanwhile would wait for its end: a GPU has one queue for both.
        fitted = fit([*conditioned.kv, *ours], [*kv, *theirs], self._settings, give_way)
        patch = _patch_record(chunk, base.header, computed, fitted, self._settings)
        return [patch] if stored else [base, patch]

    def _base_record(self, chunk: Key, computed: Computed) -> Record:
        kept = computed.kept
        if self._settings.base_dtype == "int8":
            kept = kept._replace(kv=tuple(map(compressed, kept.kv)))
        layers = _record_layers(kept.layers)
        # The samples change with every other computation of the chunk, however little it differs.
        named = {f"{number}.{part}": t for number, layer in enumerate(layers) for part, t in enumerate(layer)}
        attributes = {**_facts(computed.seen), "content": digest_tensors(named, NUM_SAMPLES)}
        return Record.of(self._base_key(chunk), chunk.digest, "base", layers, attributes)

    def _put(self, records: Sequence[Record]) -> int:
        self._store.put_many(records)
        return sum(record.header.num_bytes for record in records)


def _are_as_good(known: Sequence[Evidence], seen: Antecedents) -> bool:
    """Whether stored KV makes new KV, computed after `seen`, superfluous."""
    if not known:
        return False
    best = best_of(known, seen)
    fits = grade(best.seen, seen) in ("chain", "ordered") and text_match(best.seen, seen) == 1
    return fits and (not best.approximate or not seen.exact)


def _patch_record(chunk: Key, base: Header, computed: Computed, patch: Patch, settings: Settings) -> Record:
    """The record of a patch. Its key omits the texts, so the newest patch for the same chunks replaces older ones."""
    facts, rank = _facts(computed.seen), _rank_label(settings)
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
    layers = _record_layers(computed.kept.patch_layers(patch.factors))
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
