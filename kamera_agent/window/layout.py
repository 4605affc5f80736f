"""Layout: from the items that a window holds to the runs of tokens that the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.runtime.families.base import Family
from kamera_agent.window.plan import Kind

# What an item takes besides its pixels, roughly: tokens, offsets, key material.
ITEM_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A run in a window, under an id: a content of the caller, a reply, or what the chat format puts between them.

    kind: "anchor" and "turn" are the chat format's own; lay_out adds them.
    text: what the run was tokenised from; empty for pictures and for the chat format's own.
    new_turn: whether the item begins a turn even after an item of the same role, as a reply does.
    """

    id: str
    kind: Kind
    role: str
    run: Run
    text: str = ""
    new_turn: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes that a dropped item takes while it is kept for recall."""
        return ITEM_BYTES + (self.run.pixels.nbytes if isinstance(self.run, Chunk) else 0)


def lay_out(items: Sequence[Item], family: Family, reply_id: str | None = None) -> list[Item]:
    """The anchor, the items in order, and a run of markup wherever a turn begins.

    items: the first one is the system prompt. Items without tokens add their turns only; a system prompt adds none.
    reply_id: id of the reply about to be generated; its turn is opened at the end. None leaves the last turn open.
    """
    laid_out = [Item("anchor", "anchor", "system", TextRun(family.chat.anchor_ids))]
    role = None
    for item in items:
        is_empty = not item.run.token_ids
        if is_empty and item is items[0]:
            continue
        if item.role != role or item.new_turn:
            text_follows = isinstance(item.run, TextRun) and not is_empty
            laid_out += _turn(item.id, role, item.role, family, text_follows=text_follows)
            if item.kind == "text" and not is_empty:
                # Some chat formats end their markup with a space that the tokenizer joins to the first word.
                item = replace(item, run=TextRun(family.chat.first_words(role, item.role, item.text)))
            role = item.role
        if not is_empty:
            laid_out.append(item)
    if reply_id is not None:
        laid_out += _turn(reply_id, role, "assistant", family, text_follows=True)
    return laid_out


def _turn(first_id: str, before: str | None, role: str, family: Family, *, text_follows: bool) -> list[Item]:
    """The markup that opens a turn; nothing where the anchor has opened it."""
    token_ids = family.chat.turn(before, role, text_follows=text_follows)
    return [Item(f"{first_id}:turn", "turn", role, TextRun(token_ids))] if token_ids else []


def count_tokens(items: Sequence[Item]) -> int:
    """Tokens of items in a row."""
    return sum(len(item.run.token_ids) for item in items)


def count_positions(items: Sequence[Item]) -> int:
    """Positions of items in a row."""
    return sum(item.run.extent for item in items)
