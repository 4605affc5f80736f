"""What an engine is asked to do with a span of a request, as JSON: it computes in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from blake3 import blake3

from kamera_agent.antecedents import Antecedents, Trail
from kamera_agent.chunk import Key
from kamera_agent.window.evidence import Evidence

Json = Mapping[str, Any]


class Load(NamedTuple):
    """KV that the pages of a span get from the store.

    first: the number of its first token in the request. positions: [A, T]. evidence: with the keys of records.
    """

    first: int
    positions: torch.Tensor
    evidence: Evidence

    @property
    def end(self) -> int:
        """The number of the token after it."""
        return self.first + self.positions.shape[1]

    def to_json(self) -> dict[str, Any]:
        """Without the antecedents that loading does not compare."""
        evidence = self.evidence
        return {
            "first": self.first,
            "positions": self.positions.tolist(),
            "base": evidence.base and evidence.base.material,
            "patch": evidence.patch and evidence.patch.material,
            "chain": evidence.seen.chain.hex(),
            "exact": evidence.seen.exact,
        }

    @classmethod
    def from_json(cls, facts: Json) -> Self:
        seen = Antecedents(chain=bytes.fromhex(facts["chain"]), exact=facts["exact"])
        evidence = Evidence(seen, _key(facts["base"]), _key(facts["patch"]))
        return cls(facts["first"], torch.tensor(facts["positions"]), evidence)


def row_of(loads: Sequence[Load]) -> range:
    """The tokens of spans in a row; empty for none."""
    return range(loads[0].first, loads[-1].end) if loads else range(0)


class Save(NamedTuple):
    """KV of a span that the engine computes, and the store is to keep.

    first, positions: as of Load. key: of the chunk. seen: what is before it.
    """

    first: int
    positions: torch.Tensor
    key: Key
    seen: Antecedents

    @property
    def end(self) -> int:
        """The number of the token after it."""
        return self.first + self.positions.shape[1]

    def to_json(self) -> dict[str, Any]:
        seen = self.seen
        return {
            "first": self.first,
            "positions": self.positions.tolist(),
            "key": self.key.material,
            "chunks": [digest.hex() for digest in seen.chunks],
            "texts": [digest.hex() for digest in seen.texts],
            "chain": seen.chain.hex(),
            "exact": seen.exact,
        }

    @classmethod
    def from_json(cls, facts: Json) -> Self:
        chunks, texts = (tuple(map(bytes.fromhex, facts[name])) for name in ("chunks", "texts"))
        seen = Antecedents(chunks, Trail.of(texts), bytes.fromhex(facts["chain"]), facts["exact"])
        key = _key(facts["key"])
        assert key
        return cls(facts["first"], torch.tensor(facts["positions"]), key, seen)


def _key(material: str | None) -> Key | None:
    """The key of this material, whose digest follows from it."""
    return None if material is None else Key(blake3(material.encode()).digest(), material)
