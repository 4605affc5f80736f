"""From what a window holds to the runs of tokens that the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.runtime.families.base import Family

Kind = Literal["anchor", "turn", "text", "reply", "image", "frames", "document"]

ITEM_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Something the caller added, or a reply, tokenised and fingerprinted. text is empty for a chunk.

    new_turn: begins a turn even behind an item of the same role, as replies do.
    """

    id: str
    kind: Kind
    role: str
    run: Run
    text: str = ""
    new_turn: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes it takes to keep: its pixels, and a lump for the rest."""
        return ITEM_BYTES + (self.run.pixels.nbytes if isinstance(self.run, Chunk) else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A run in the order of the window: an item's own, the anchor, or the markup between two turns."""

    id: str
    kind: Kind
    role: str
    run: Run


def lay_out(items: Sequence[Item], family: Family, reply_id: str | None = None) -> list[Piece]:
    """Anchor, items in order, and a run of markup wherever a turn begins.

    items: the first one is the system prompt, which may have no tokens.
    reply_id: id of the reply about to be generated; its turn is opened at the end. None leaves the last turn open.
    """
    pieces = [Piece("anchor", "anchor", "system", TextRun(family.chat.anchor_ids))]
    role = None
    for item in items:
        if not item.run.token_ids:
            continue
        run = item.run
        if item.role != role or item.new_turn:
            pieces += _turn(item.id, role, item.role, family, text_follows=isinstance(run, TextRun))
            if item.kind == "text":
                run = TextRun(family.chat.first_words(role, item.role, item.text))
            role = item.role
        pieces.append(Piece(item.id, item.kind, item.role, run))
    if reply_id is not None:
        pieces += _turn(reply_id, role, "assistant", family, text_follows=True)
    return pieces


def _turn(first_id: str, before: str | None, role: str, family: Family, *, text_follows: bool) -> list[Piece]:
    """The markup that opens a turn; nothing where the anchor has opened it."""
    token_ids = family.chat.turn(before, role, text_follows=text_follows)
    return [Piece(f"{first_id}:turn", "turn", role, TextRun(token_ids))] if token_ids else []
