"""A span, as a caller sees it."""

from __future__ import annotations

from dataclasses import dataclass

from kamera_agent.chunk import Chunk
from kamera_agent.window.layout import Item
from kamera_agent.window.plan import Kind, Origin
from kamera_agent.window.planner import Resident


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk or a text run in a window.

    position: of its first token, in the window as it is now.
    origin, exact: where its KV came from at the last answer, and whether a full prefill of that window gives the same;
        None before its first answer. slots: rows of the pool, empty before its first answer.
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


def make_span(item: Item, position: int, resident: Resident | None) -> Span:
    """The span of an item at a position. resident: its KV in the pool, None where there is none."""
    return Span(
        id=item.id,
        kind=item.kind,
        role=item.role,
        num_tokens=len(item.run.token_ids),
        position=position,
        origin=resident.origin if resident else None,
        exact=resident.exact if resident else None,
        slots=resident.slots.ranges if resident else (),
        key=item.run.digest.hex() if isinstance(item.run, Chunk) else "",
    )
