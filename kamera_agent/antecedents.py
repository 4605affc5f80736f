"""Antecedents: what KV was computed after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

from blake3 import blake3

from kamera_agent.chunk import Chunk, Run


class Trail:
    """Digests in order. A trail that goes on from a shorter one shares it, so what both hold is looked at once."""

    __slots__ = ("__weakref__", "_before", "_distinct", "_last", "_size")

    def __init__(self, before: Trail | None = None, last: bytes = b"") -> None:
        """The trail with one digest more than `before`; without one, the empty trail."""
        self._before, self._last = before, last
        self._size: int = 0 if before is None else before._size + 1
        self._distinct: frozenset[bytes] | None = None

    @classmethod
    def of(cls, digests: Iterable[bytes]) -> Trail:
        """The trail of these digests."""
        return reduce(cls, digests, cls())

    def then(self, digest: bytes) -> Trail:
        """The trail with one more digest."""
        return Trail(self, digest)

    def likeness(self, other: Trail) -> float:
        """The share of the different digests of two trails that both have, 0 to 1."""
        if self == other:
            return 1.0
        common, ours, theirs = self._apart(other)
        num_common = len(common.distinct)
        ours, theirs = ours - common.distinct, theirs - common.distinct
        return (num_common + len(ours & theirs)) / (num_common + len(ours | theirs))

    @property
    def distinct(self) -> frozenset[bytes]:
        """The digests without their order."""
        if self._distinct is None:
            added, trail = set[bytes](), self
            while trail._before is not None and trail._distinct is None:
                added.add(trail._last)
                trail = trail._before
            self._distinct = (trail._distinct or frozenset()) | added
        return self._distinct

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        digests, trail = list[bytes](), self
        while trail._before is not None:
            digests.append(trail._last)
            trail = trail._before
        return reversed(digests)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trail) or self._size != other._size:
            return False
        ours, theirs = self, other
        while ours is not theirs and ours._before is not None and theirs._before is not None:
            if ours._last != theirs._last:
                return False
            ours, theirs = ours._before, theirs._before
        return True

    def __hash__(self) -> int:
        return hash((self._size, self._last))

    def _apart(self, other: Trail) -> tuple[Trail, set[bytes], set[bytes]]:
        """What two trails share, and the digests that each has after that."""
        ours, theirs = self, other
        ends: tuple[set[bytes], set[bytes]] = set(), set()
        while ours is not theirs and ours._size + theirs._size > 0:
            longer, shorter = ours._size >= theirs._size, theirs._size >= ours._size
            if longer and ours._before is not None:
                ends[0].add(ours._last)
                ours = ours._before
            if shorter and theirs._before is not None:
                ends[1].add(theirs._last)
                theirs = theirs._before
        return ours, *ends


NO_TEXTS = Trail()


@dataclass(frozen=True, slots=True)
class Antecedents:
    """The runs before a place in a window, or before a chunk when its KV was computed.

    chunks: digests of the chunks before it, in order.
    texts: digests of the text runs before it, in order, without the anchor.
    chain: digest of all runs before it, in order, the anchor first; see link().
    exact: whether the KV is that of a full prefill of this chain.
    """

    chunks: tuple[bytes, ...] = ()
    texts: Trail = NO_TEXTS
    chain: bytes = b""
    exact: bool = True

    @property
    def orbit(self) -> tuple[bytes, ...]:
        """The antecedent chunks without their order: one patch serves the whole orbit (arXiv 2606.23581)."""
        return tuple(sorted(self.chunks))

    def then(self, run: Run) -> Antecedents:
        """The antecedents of what follows one more run."""
        chunks, texts = self.chunks, self.texts
        if isinstance(run, Chunk):
            chunks = (*chunks, run.digest)
        elif self.chain:
            # The anchor is before every chunk, so it tells none apart.
            texts = texts.then(run.digest)
        return Antecedents(chunks, texts, link(self.chain, run), self.exact)


def link(chain: bytes, run: Run) -> bytes:
    """The chain of the runs of `chain` and one more; the empty chain is b""."""
    return blake3(chain + run.digest).digest(16)
