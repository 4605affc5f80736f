"""Relations of a cell to the pictures before it. They are the targets of the probes.

The decoder learns the binding tasks from the answers alone as well, but many times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kamera_agent.pocket.screen import Picture, Screen, Shot

LEADS_TO = {"owners": "rooms", "rooms": "keys"}
COMES_FROM = {after: before for before, after in LEADS_TO.items()}


class Relations(NamedTuple):
    """Words that a cell should know besides those it shows; "" for none.

    title: the title of its screen.
    seen: "same" if an earlier picture shows the same label or shape and the same value or colour, "changed" if earlier
        pictures show it with others only.
    source, root: labels one and two joins back. target, end: values one and two joins on.
    """

    title: str = ""
    seen: str = ""
    source: str = ""
    root: str = ""
    target: str = ""
    end: str = ""


def relate(window: Sequence[Picture]) -> list[dict[int, Relations]]:
    """Per picture, the relations of each cell that shows something."""
    return [
        _of_screen(picture, window[:index]) if isinstance(picture, Screen) else _of_shot(picture, window[:index])
        for index, picture in enumerate(window)
    ]


def _of_screen(screen: Screen, before: Sequence[Picture]) -> dict[int, Relations]:
    tables: dict[str, dict[str, str]] = {}
    shown: set[tuple[str, str]] = set()
    for picture in before:
        if isinstance(picture, Screen):
            tables.setdefault(picture.kind, {}).update({card.label: card.value for card in picture.cards})
            if picture.kind == screen.kind:
                shown |= {(card.label, card.value) for card in picture.cards}
    back = {kind: {value: label for label, value in table.items()} for kind, table in tables.items()}
    known = tables.get(screen.kind, {})
    previous, following = COMES_FROM.get(screen.kind, ""), LEADS_TO.get(screen.kind, "")
    relations = {0: Relations(title=screen.title)}
    for card in screen.cards:
        source = back.get(previous, {}).get(card.label, "")
        target = tables.get(following, {}).get(card.value, "")
        relations[card.cell] = Relations(
            title=screen.title,
            seen="" if card.label not in known else "same" if (card.label, card.value) in shown else "changed",
            source=source,
            root=back.get(COMES_FROM.get(previous, ""), {}).get(source, ""),
            target=target,
            end=tables.get(LEADS_TO.get(following, ""), {}).get(target, ""),
        )
    return relations


def _of_shot(shot: Shot, before: Sequence[Picture]) -> dict[int, Relations]:
    looks = {(mark.shape, mark.colour) for other in before if isinstance(other, Shot) for mark in other.marks}
    shapes = {shape for shape, _ in looks}
    return {
        mark.cell: Relations(
            seen="" if mark.shape not in shapes else "same" if (mark.shape, mark.colour) in looks else "changed"
        )
        for mark in shot.marks
    }
