"""Where attention should go: what training shows some of the decoder's heads.

Left to itself, no head found what to compare a card with in several hundred steps; shown, and started with weights
that look cards up (frame.py), it does so within the first hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch

from kamera_agent.pocket.screen import Cell, Picture, Screen
from kamera_agent.pocket.tasks import Question
from kamera_agent.pocket.train.relations import COMES_FROM, LEADS_TO, Relations
from kamera_agent.pocket.words import ZONES

# From a cell: to the same label or shape earlier, to what leads to it, to what it leads to, to its title.
# From where an answer begins: to the subject of the question, to the cells that hold the answer.
Gaze = Literal["same", "source", "target", "title", "subject", "focus"]
GAZES: tuple[Gaze, ...] = get_args(Gaze)

# (layer, head) of each gaze. Two layers look around, so that what is two joins away is reached, too.
HEADS: dict[Gaze, tuple[tuple[int, int], ...]] = {
    "same": ((0, 0), (1, 0)),
    "target": ((0, 1), (1, 1)),
    "source": ((0, 2), (1, 2)),
    "title": ((0, 3), (1, 3)),
    "subject": ((2, 3),),
    "focus": ((3, 0), (4, 1)),
}

# The first token of the window: where a head looks that finds nothing.
SINK = 0


class Sight(NamedTuple):
    """A cell with something in it: number of its picture, place in the sequence, relations, and what it shows."""

    picture: int
    place: int
    relations: Relations
    cell: Cell


def look_around(window: Sequence[Picture], sights: Sequence[Sight]) -> dict[Gaze, list[tuple[int, list[int]]]]:
    """Per gaze of cells, (place, places to look at)."""
    gazes: dict[Gaze, list[tuple[int, list[int]]]] = {"same": [], "source": [], "target": [], "title": []}
    kinds = [picture.kind if isinstance(picture, Screen) else "shot" for picture in window]
    titles = {sight.picture: sight.place for sight in sights if sight.cell.first == sight.relations.title}
    for sight in sights:
        kind, cell = kinds[sight.picture], sight.cell
        if sight.picture in titles:
            gazes["title"].append((sight.place, [titles[sight.picture]]))
        if sight.place == titles.get(sight.picture):
            continue
        before = [other for other in sights if other.picture < sight.picture]
        of_kind = {name: [other for other in before if kinds[other.picture] == name] for name in set(kinds)}
        matches: tuple[tuple[Gaze, list[int]], ...] = (
            ("same", [o.place for o in of_kind[kind] if o.cell.first == cell.first]),
            ("source", [o.place for o in of_kind.get(COMES_FROM.get(kind, ""), ()) if o.cell.second == cell.first]),
            ("target", [o.place for o in of_kind.get(LEADS_TO.get(kind, ""), ()) if o.cell.first == cell.second]),
        )
        for gaze, found in matches:
            gazes[gaze].append((sight.place, found or [SINK]))
    return gazes


def focus(question: Question, window: Sequence[Picture], sights: Sequence[Sight]) -> list[int]:
    """Places of the cells that hold the answer, by what they show or by what they know."""
    subject, answer = question.subject, question.answer
    last = max((i for i, picture in enumerate(window) if not isinstance(picture, Screen)), default=-1)
    found = []
    for number, place, known, cell in sights:
        about = subject in (cell.first, known.source, known.root)
        holds = answer in (cell.second, known.target, known.end)
        match question.task:
            case "find":
                hit = subject in (cell.first, cell.second)
            case "diff" | "count":
                hit = known.seen == "changed" and not cell.third
            case "track" if answer in ZONES:
                hit = subject == cell.first and number == last
            case "track":
                hit = subject == cell.first and known.seen == "changed"
            case _:
                hit = about and holds
        if hit:
            found.append(place)
    return found or [SINK]


def gaze_loss(attentions: Sequence[torch.Tensor], gazes: Mapping[Gaze, tuple[torch.Tensor, ...]]) -> torch.Tensor:
    """Mean surprise at where the shown heads look.

    attentions: per layer, weights [B, heads, S, S]. gazes: as in Batch.
    """
    losses = []
    for gaze, heads in HEADS.items():
        query, sequence, place, key = gazes[gaze]
        if len(query) == 0:
            continue
        for layer, head in heads:
            weights = attentions[layer][sequence, head, place, key]
            surprise = -torch.zeros(int(query.max()) + 1).index_add(0, query, weights).clamp_min(1e-6).log()
            # Most cells find nothing; those that do would be drowned.
            found = torch.zeros(len(surprise), dtype=torch.bool).index_fill(0, query[key != SINK], True)
            losses += [surprise[group].mean() for group in (found, ~found) if group.any()]
    return torch.stack(losses).mean()
