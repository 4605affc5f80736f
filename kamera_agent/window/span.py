"""A span, as a caller sees it."""

from __future__ import annotations

from dataclasses import dataclass

from kamera_agent.chunk import Chunk
from kamera_agent.window.layout import Kind, Piece
from kamera_agent.window.plan import Origin
from kamera_agent.window.planner import Lying


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk or a text run lying in a window.

    position: of its first token, as the window stands now.
    origin, exact: how its KV came to be at the last answer, and whether it is what a full prefill of that window
        gives; None before its first answer. slots: rows of the pool, empty before its first answer.
    key: hex digest of a chunk's key; empty for text.
    """

    id: str
    kind: Kind
    role: str
    num_tokens: int
    position: int
    origin: Origin | None
    exact: bool | None
    slots: tuple[range, ...]
    key: str


def make_span(piece: Piece, position: int, lying: Lying | None) -> Span:
    """The span of a piece at a position; lying: its KV in the pool, None where there is none."""
    return Span(
        id=piece.id,
        kind=piece.kind,
        role=piece.role,
        num_tokens=len(piece.run.token_ids),
        position=position,
        origin=lying.origin if lying else None,
        exact=lying.exact if lying else None,
        slots=lying.slots if lying else (),
        key=piece.run.digest.hex() if isinstance(piece.run, Chunk) else "",
    )
