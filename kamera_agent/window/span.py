"""A span, as a caller sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kamera_agent.chunk import Chunk
from kamera_agent.vision.image import Pixels
from kamera_agent.window.evidence import Stale
from kamera_agent.window.layout import Place
from kamera_agent.window.notebook import span_html
from kamera_agent.window.plan import Kind, Origin
from kamera_agent.window.resident import Resident


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk or a text run in a window.

    position: of its first token, in the window as it is now.
    origin, exact: where its KV came from at the last answer, and whether a full prefill of that window gives the same;
        None before its first answer. slots: rows of the pool, empty before its first answer.
    stale: how the runs before a chunk differ, at the last answer, from those that its KV was computed after.
    key: hex digest of a chunk's key; empty for text.
    text: of a text or reply; empty for chunks and for the chat format's own.
    pixels: of an image [H, W, 3] or of frames [F, H, W, 3], uint8 RGB, not to be written to; None for other spans.
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
    stale: Stale | None = None
    text: str = field(default="", repr=False)
    pixels: Pixels | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        return span_html(self)


def make_span(place: Place, resident: Resident | None) -> Span:
    """The span of an item in its place. resident: its KV in the pool, None where there is none."""
    item = place.item
    chunk = item.run if isinstance(item.run, Chunk) else None
    return Span(
        id=item.id,
        kind=item.kind,
        role=item.role,
        num_tokens=len(item.run.token_ids),
        position=place.position,
        origin=resident.origin if resident else None,
        exact=resident.exact if resident else None,
        slots=resident.slots.ranges if resident else (),
        key=chunk.digest.hex() if chunk else "",
        stale=resident.stale if resident else None,
        text=item.text,
        pixels=chunk.pixels if chunk and chunk.has_pixels else None,
    )
