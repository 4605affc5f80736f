"""Evidence: what KV was computed after, and how that compares with the runs before a place in a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

if TYPE_CHECKING:
    from kamera_agent.antecedents import Antecedents
    from kamera_agent.chunk import Key

Grade = Literal["chain", "ordered", "orbit", "survivor", "other"]
GRADES: tuple[Grade, ...] = get_args(Grade)


@dataclass(frozen=True, slots=True)
class Evidence:
    """KV of a chunk, in the pool or in the store.

    seen: what it was computed after. seen.exact: whether it is exact there, with nothing truncated or rounded.
    base, patch: keys of the records that give it; both None for KV in the pool, patch None for a base as it is.
    error: relative error that the truncated patch has left of the residue; 0.0 without a patch.
    approximate: whether it is, or was before it was truncated, not the KV of a full prefill.
    """

    seen: Antecedents
    base: Key | None = None
    patch: Key | None = None
    error: float = 0.0
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Stale:
    """How the runs before a chunk differ from those that its KV was computed after.

    Chunks are named by the digests of their keys.

    unseen: chunks that it has never seen. lost: chunks that it saw and that have gone. reordered: chunks that it saw in
        other places. texts: whether texts differ.
    """

    unseen: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    reordered: tuple[str, ...] = ()
    texts: bool = False

    @classmethod
    def of(cls, seen: Antecedents, present: Antecedents) -> Self | None:
        """What differs; None where nothing does."""
        if seen.chain == present.chain:
            return None
        common = Counter(seen.chunks) & Counter(present.chunks)
        ours, unseen = _split(present.chunks, common)
        theirs, lost = _split(seen.chunks, common)
        reordered = (chunk for chunk, other in zip(ours, theirs, strict=True) if chunk != other)
        return cls(_hex(unseen), _hex(lost), _hex(reordered), seen.texts != present.texts)

    @property
    def of_chunks(self) -> bool:
        """Whether chunks differ, and not only texts."""
        return self.lacks or bool(self.lost)

    @property
    def lacks(self) -> bool:
        """Whether chunks are before it that its KV has not seen, or saw in other places."""
        return bool(self.unseen or self.reordered)


def grade(seen: Antecedents, present: Antecedents) -> Grade:
    """How well KV that was computed after `seen` fits a place after `present`.

    "chain": the same runs. "ordered": the same chunks in the same order. "orbit": the same chunks in another order.
    "survivor": the same chunks in the same order, without some that have gone. "other": any other chunks.
    """
    if seen.chain == present.chain:
        return "chain"
    if seen.chunks == present.chunks:
        return "ordered"
    if seen.orbit == present.orbit:
        return "orbit"
    remaining = iter(seen.chunks)
    return "survivor" if all(chunk in remaining for chunk in present.chunks) else "other"


def text_match(seen: Antecedents, present: Antecedents) -> float:
    """Share of the texts before a chunk that are the same, 0 to 1."""
    return seen.texts.likeness(present.texts)


def best_of(candidates: Sequence[Evidence], present: Antecedents) -> Evidence:
    """The evidence that fits a place best; KV in the pool comes before the store's, and the first one among equals."""
    ranks = [_rank(evidence, present) for evidence in candidates]
    equals = [evidence for evidence, rank in zip(candidates, ranks, strict=True) if rank == min(ranks)]
    if len(equals) == 1:
        return equals[0]
    return min(equals, key=lambda evidence: (-text_match(evidence.seen, present), evidence.error))


def _rank(evidence: Evidence, present: Antecedents) -> tuple[int, ...]:
    """How badly the chunks that evidence has seen fit a place."""
    graded = grade(evidence.seen, present)
    common = (Counter(evidence.seen.chunks) & Counter(present.chunks)).total()
    return (
        GRADES.index(graded),
        len(present.chunks) - common,
        len(evidence.seen.chunks) - common,
        not (graded == "chain" and evidence.seen.exact),
        evidence.base is not None,
        evidence.approximate,
    )


def _split(chunks: tuple[bytes, ...], common: Counter[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The chunks that are common to two lists, as often as both have them, and the others."""
    left = common.copy()
    ours: list[bytes] = []
    others: list[bytes] = []
    for chunk in chunks:
        (ours if left[chunk] > 0 else others).append(chunk)
        left[chunk] -= 1
    return ours, others


def _hex(digests: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(digest.hex() for digest in digests)
