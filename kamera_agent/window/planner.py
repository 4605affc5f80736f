"""Planning a turn: how the KV of every piece of the window comes to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from blake3 import blake3

from kamera_agent.chunk import Antecedents, Chunk, Run
from kamera_agent.config import Fidelity
from kamera_agent.window.layout import Piece
from kamera_agent.window.library import Match
from kamera_agent.window.plan import Origin, Plan, PlanRow


class Finder(Protocol):
    """What planning asks of a library."""

    def find(self, chunk: Chunk, antecedents: Antecedents) -> Match | None: ...

    def has_canonical(self, chunk: Chunk) -> bool: ...


class Regime(NamedTuple):
    """Which frequencies hold in a window of a model whose RoPE switches them beyond some length.

    long: those beyond it; what the store holds is of the others. switched: what lies in the pool is of the others.
    """

    long: bool = False
    switched: bool = False


SHORT = Regime()


@dataclass(frozen=True, slots=True, eq=False)
class Lying:
    """A piece whose KV lies in the pool.

    chain: digest of all runs up to and with this one, as they stood when its KV was computed.
    exact_then: whether that KV was computed over exact spans only, so that it is right wherever chain recurs.
    origin, exact: as of the last turn.
    """

    piece: Piece
    slots: tuple[range, ...]
    position: int
    order: int
    chain: bytes
    exact_then: bool
    origin: Origin
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What happens to one piece.

    lying: the KV it takes over, for kept and moved. match: the patch, for recalled.
    antecedents: what stands before it now. switched: there is KV to take, but of other RoPE frequencies.
    """

    piece: Piece
    position: int
    order: int
    origin: Origin
    exact: bool
    chain: bytes
    antecedents: Antecedents
    lying: Lying | None = None
    match: Match | None = None
    switched: bool = False


def make_plan(steps: Sequence[Step]) -> Plan:
    """The printable form of steps."""
    return Plan(tuple(map(_row, steps)))


def _row(step: Step) -> PlanRow:
    row = PlanRow(
        id=step.piece.id,
        kind=step.piece.kind,
        num_tokens=len(step.piece.run.token_ids),
        position=step.position,
        moved_from=step.lying.position if step.lying else None,
        origin=step.origin,
        exact=step.exact,
    )
    match = step.match
    if match is None:
        return row
    return replace(
        row, match=match.grade, error=match.error, text_match=match.text_match, approximate=match.approximate
    )


def plan_steps(
    pieces: Sequence[Piece],
    lying: Sequence[Lying],
    fidelity: Fidelity,
    library: Finder,
    *,
    answering: bool,
    unavailable: frozenset[bytes] = frozenset(),
    regime: Regime = SHORT,
) -> list[Step]:
    """Decide for every piece how its KV comes to be.

    lying: what the pool holds, in order. answering: the last piece is computed whatever happens, because the
    logits behind it are wanted. unavailable: digests of chunks that the store turned out not to have. regime: KV of
    other frequencies than the window's is computed anew.
    """
    num_kept, partners = _match_lying(pieces, lying)
    steps: list[Step] = []
    position = order = 0
    chain = b""
    for index, piece in enumerate(pieces):
        chain = link(chain, piece.run)
        step = Step(piece, position, order, "computed", all(s.exact for s in steps), chain, _antecedents(steps))
        if not (answering and index == len(pieces) - 1):
            computed = step
            step = _reuse(step, partners.get(index), index < num_kept, fidelity)
            if regime.switched and step.lying:
                step = replace(computed, switched=True)
            if step.origin == "computed" and isinstance(piece.run, Chunk) and piece.run.digest not in unavailable:
                step = _recall(step, piece.run, fidelity, library)
                if regime.long and step.origin != "computed":
                    step = replace(computed, switched=True)
        steps.append(step)
        position += piece.run.extent
        order += len(piece.run.token_ids)
    return steps


def link(chain: bytes, run: Run) -> bytes:
    """The chain of a run that stands behind `chain`."""
    return blake3(chain + run.digest).digest(16)


def _antecedents(steps: Sequence[Step]) -> Antecedents:
    before = steps[1:]
    return Antecedents(
        tuple(step.piece.run.digest for step in before if isinstance(step.piece.run, Chunk)),
        tuple(step.piece.run.digest for step in before if not isinstance(step.piece.run, Chunk)),
        not all(step.exact for step in steps),
    )


def _reuse(step: Step, lying: Lying | None, kept: bool, fidelity: Fidelity) -> Step:
    """Take over KV from the pool where the fidelity admits it."""
    if lying is None:
        return step
    exact = lying.exact_then and lying.chain == step.chain
    if fidelity == "exact" and not exact:
        return step
    return replace(step, origin="kept" if kept else "moved", exact=exact, lying=lying)


def _recall(step: Step, chunk: Chunk, fidelity: Fidelity, library: Finder) -> Step:
    """Take a chunk from the store where the fidelity admits it."""
    if fidelity == "exact":
        return step
    if match := library.find(chunk, step.antecedents):
        return replace(step, origin="recalled", exact=False, match=match)
    if fidelity == "blind" and library.has_canonical(chunk):
        return replace(step, origin="blind", exact=False)
    return step


def _match_lying(pieces: Sequence[Piece], lying: Sequence[Lying]) -> tuple[int, dict[int, Lying]]:
    """Pair pieces with KV in the pool: (length of the unchanged beginning, partner by piece index).

    Behind the beginning, the span of the same id goes first; for chunks, then any other of the same content, in
    order. A text of another id is computed: it is cheap, and stood elsewhere for another reason.
    """
    num_kept = 0
    for piece, there in zip(pieces, lying, strict=False):
        if piece.run.digest != there.piece.run.digest:
            break
        num_kept += 1
    partners = dict(enumerate(lying[:num_kept]))
    left = list(lying[num_kept:])
    for same_id in (True, False):
        for index in range(num_kept, len(pieces)):
            piece = pieces[index]
            if index in partners or not (same_id or isinstance(piece.run, Chunk)):
                continue
            found = _take(left, piece, same_id)
            if found:
                partners[index] = found
    return num_kept, partners


def _take(left: list[Lying], piece: Piece, same_id: bool) -> Lying | None:
    for there in left:
        if there.piece.run.digest == piece.run.digest and (not same_id or there.piece.id == piece.id):
            left.remove(there)
            return there
    return None
