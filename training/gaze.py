"""Gazes: where some heads of the decoder should look. Training has a loss for it.

Without that loss, no head learned what to compare a card with in several hundred steps. With it, and with initial
weights that look up cards (frame.py), heads learn it within the first hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch

from kamera_agent.pocket.screen import Cell, Picture, Screen
from kamera_agent.pocket.tasks import Question
from kamera_agent.pocket.words import COUNTS, ZONES
from training.attention import Weights
from training.relations import COMES_FROM, LEADS_TO, Relations

# From a cell: same, the same label or shape in an earlier picture; source and target, the cells one join back and one
# join on; root and end, two joins back and on; title, its title.
# From the place where an answer begins: subject, the word that the question is about; focus, the cells that hold the
# answer; holder, the cells that show the subject as a value.
Gaze = Literal["same", "source", "target", "root", "end", "title", "subject", "focus", "holder"]
GAZES: tuple[Gaze, ...] = get_args(Gaze)

# (layer, head) of each gaze. The second layer searches with the words that the first one has found.
HEADS: dict[Gaze, tuple[tuple[int, int], ...]] = {
    "same": ((0, 0), (1, 0)),
    "target": ((0, 1),),
    "end": ((1, 1),),
    "source": ((0, 2),),
    "root": ((1, 2),),
    "title": ((0, 3), (1, 3)),
    "subject": ((2, 3),),
    "focus": ((3, 0), (4, 1)),
    "holder": ((3, 2),),
}

# The first token of the window. A head without a target looks at it.
SINK = 0


class Sight(NamedTuple):
    """A cell that shows something: number of its picture, place in the sequence, relations and content."""

    picture: int
    place: int
    relations: Relations
    cell: Cell


def look_around(window: Sequence[Picture], sights: Sequence[Sight]) -> dict[Gaze, list[tuple[int, list[int]]]]:
    """Per gaze of cells: pairs of a place and the places to look at."""
    gazes: dict[Gaze, list[tuple[int, list[int]]]] = {
        gaze: [] for gaze in ("same", "source", "target", "root", "end", "title")
    }
    kinds = [picture.kind if isinstance(picture, Screen) else "shot" for picture in window]
    titles = {sight.picture: sight.place for sight in sights if sight.cell.first == sight.relations.title}
    for sight in sights:
        kind, cell = kinds[sight.picture], sight.cell
        if sight.picture in titles:
            gazes["title"].append((sight.place, [titles[sight.picture]]))
        if sight.place == titles.get(sight.picture):
            continue
        before = [other for other in sights if other.picture < sight.picture]
        shown = {name: [other for other in before if kinds[other.picture] == name] for name in set(kinds)}
        back, on, known = COMES_FROM.get(kind, ""), LEADS_TO.get(kind, ""), sight.relations
        matches: tuple[tuple[Gaze, list[int]], ...] = (
            ("same", _labelled(cell.first, shown[kind])),
            ("source", _valued(cell.first, shown.get(back, []))),
            ("target", _labelled(cell.second, shown.get(on, []))),
            ("root", _valued(known.source, shown.get(COMES_FROM.get(back, ""), []))),
            ("end", _labelled(known.target, shown.get(LEADS_TO.get(on, ""), []))),
        )
        for gaze, targets in matches:
            gazes[gaze].append((sight.place, targets or [SINK]))
    return gazes


def _labelled(word: str, sights: Sequence[Sight]) -> list[int]:
    return [sight.place for sight in sights if word and sight.cell.first == word]


def _valued(word: str, sights: Sequence[Sight]) -> list[int]:
    return [sight.place for sight in sights if word and sight.cell.second == word]


def focus(question: Question, window: Sequence[Picture], sights: Sequence[Sight]) -> list[int]:
    """Places of the cells that hold the answer, in what they show or in their relations."""
    subject, answer = question.subject, question.answer
    last = max((i for i, picture in enumerate(window) if not isinstance(picture, Screen)), default=-1)
    places = []
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
            places.append(place)
    # Attention weights sum to one, so a head can only count by the share that the sink keeps.
    counts = question.answer in COUNTS
    return [*places, SINK] if counts or not places else places


def holders(question: Question, sights: Sequence[Sight]) -> list[int]:
    """Places of the cells that show the subject of a question as a value."""
    return _valued(question.subject, sights) or [SINK]


def gaze_loss(attentions: Sequence[Weights], gazes: Mapping[Gaze, tuple[torch.Tensor, ...]]) -> torch.Tensor:
    """Mean negative log of the attention that heads pay to their targets.

    attentions: per layer. gazes: as in Batch.
    """
    losses = []
    for gaze, heads in HEADS.items():
        query, sequence, place, key = gazes[gaze]
        if len(query) == 0:
            continue
        for layer, head in heads:
            weights = attentions[layer].of(head, sequence, place, key)
            surprise = -torch.zeros(int(query.max()) + 1).index_add(0, query, weights).clamp_min(1e-6).log()
            # Most cells have no target. One mean over all would hide the others.
            aimed = torch.zeros(len(surprise), dtype=torch.bool).index_fill(0, query[key != SINK], True)
            losses += [surprise[group].mean() for group in (aimed, ~aimed) if group.any()]
    return torch.stack(losses).mean()
