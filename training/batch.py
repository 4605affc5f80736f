"""Windows and their questions as one batch of token sequences.

Sequence: opening | pictures, with remarks between them | question block | question block | ...
The blocks of a sequence are asked either side by side, each as if it were the only one, or in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.tasks import Question
from kamera_agent.pocket.words import SHOWN
from kamera_agent.runtime.families.base import Family
from training.gaze import GAZES, Gaze, Sight, focus, holders, look_around
from training.probes import CLASSES
from training.relations import Relations, relate

# Share of the sequences whose questions come in a row, of those with a remark before the pictures, and of the pictures
# with a step before them.
IN_A_ROW = 0.3
REMARKED = 0.5
STEPPED = 0.15
REMARKS = (
    "Watch the screens.",
    "Look at the screens and answer the question.",
    "Watch the scene and answer.",
    "Here are the next screens.",
    "Keep an eye on the prices.",
)
STEPS = ("Step one.", "Next screen.", "Then this.", "Look here.", "Step two.")


class Batch(NamedTuple):
    """B sequences of S tokens, padded at the end.

    token_ids [B, S]. features [B, S]: row of the feature table, -1 for text. positions [A, B, S].
    mask [B, 1, S, S]: True where a query (row) sees a key. targets: (sequence, place, next token), [N] each.
    tasks: the task of each target, None for the rest of an answer. cells: (sequence, place) of the cells with
    relations, [M] each; labels [M, slots]: their class numbers. gazes: per kind of gaze, (query, sequence, place, key),
    [N] each. Query q of a kind is at (sequence, place) and should look at all the keys listed with it.
    """

    token_ids: torch.Tensor
    features: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    tasks: list[str | None]
    cells: tuple[torch.Tensor, torch.Tensor]
    labels: torch.Tensor
    gazes: dict[Gaze, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]


class Shown(NamedTuple):
    """A picture of a window: tokens, offsets [A, T] and extent of its chunk.

    cells: indices of the tokens that stand for cells, in order. rows: rows of the feature table, one per cell.
    """

    token_ids: tuple[int, ...]
    offsets: torch.Tensor
    extent: int
    cells: Sequence[int]
    rows: Sequence[int]


class Lesson(NamedTuple):
    """A window, its pictures as tokens, and the questions about it."""

    window: Sequence[Picture]
    shown: Sequence[Shown]
    questions: Sequence[Question]


@dataclass
class _Sequence:
    token_ids: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    targets: list[tuple[int, int]] = field(default_factory=list)
    tasks: list[str | None] = field(default_factory=list)
    cells: list[tuple[int, Relations]] = field(default_factory=list)
    gazes: dict[Gaze, list[tuple[int, list[int]]]] = field(default_factory=lambda: {gaze: [] for gaze in GAZES})
    position: int = 0

    def add_text(self, token_ids: Sequence[int], num_axes: int, block: int = 0) -> None:
        steps = torch.arange(self.position, self.position + len(token_ids))
        self._add(token_ids, [-1] * len(token_ids), steps.expand(num_axes, -1), block)
        self.position += len(token_ids)

    def add_picture(self, shown: Shown, relations: dict[int, Relations]) -> list[int]:
        """Add a picture. Returns the places of its cells."""
        places = [len(self.token_ids) + token for token in shown.cells]
        self.cells += [(places[cell], relation) for cell, relation in relations.items()]
        features = dict(zip(shown.cells, shown.rows, strict=True))
        rows = [features.get(token, -1) for token in range(len(shown.token_ids))]
        self._add(shown.token_ids, rows, shown.offsets + self.position, 0)
        self.position += shown.extent
        return places

    def _add(self, token_ids: Sequence[int], features: Sequence[int], positions: torch.Tensor, block: int) -> None:
        self.token_ids += token_ids
        self.features += features
        self.positions.append(positions)
        self.blocks += [block] * len(token_ids)


class Batcher:
    """Makes batches for one family."""

    def __init__(self, family: Family, asked: Sequence[int]) -> None:
        """asked: the tokens between a question and its answer."""
        self._family, self._asked = family, asked
        self._to_assistant, self._to_user = family.chat.turn("user", "assistant"), family.chat.turn("assistant", "user")
        self._opening = (
            *family.chat.anchor_ids,
            *family.tokens.encode(family.chat.default_system),
            *family.chat.turn("system", "user"),
        )
        # A word within a text has a space before it.
        self._word = {word: family.tokens.encode(f"a {word}")[-1] for word in SHOWN}
        self._texts = {text: family.tokens.encode(text) for text in (*REMARKS, *STEPS)}

    def make(self, windows: Sequence[Lesson], rng: np.random.Generator) -> Batch:
        """A batch of windows. rng draws the remarks."""
        return _stack([self._sequence(*window, rng) for window in windows])

    def _sequence(
        self, window: Sequence[Picture], shown: Sequence[Shown], questions: Sequence[Question], rng: np.random.Generator
    ) -> _Sequence:
        axes = self._family.num_axes
        sequence = _Sequence()
        sequence.add_text(self._opening, axes)
        if rng.random() < REMARKED:
            sequence.add_text(self._texts[str(rng.choice(REMARKS))], axes)
        sights = []
        for number, (picture, relations) in enumerate(zip(shown, relate(window), strict=True)):
            if rng.random() < STEPPED:
                step = self._texts[str(rng.choice(STEPS))]
                sequence.add_text((*self._to_assistant, *step, *self._to_user), axes)
            places, cells = sequence.add_picture(picture, relations), window[number].cells()
            sights += [Sight(number, places[at], relation, cells[at]) for at, relation in relations.items()]
        for gaze, targets in look_around(window, sights).items():
            sequence.gazes[gaze] += targets
        start = sequence.position
        in_a_row = rng.random() < IN_A_ROW
        for number, question in enumerate(questions, start=1):
            block = number if in_a_row else -number
            if in_a_row and number > 1:
                sequence.add_text(self._to_user[1:], axes, block)
            elif not in_a_row:
                # Side by side: the mask hides the other questions, and each starts at the same position.
                sequence.position = start
            asked = (*self._family.tokens.encode(question.text), *self._asked)
            answer = (*self._family.tokens.encode(question.answer), self._to_user[0])
            sequence.add_text((*asked, *answer), axes, block)
            first = len(sequence.token_ids) - len(answer) - 1
            sequence.gazes["focus"].append((first, focus(question, window, sights)))
            if question.task == "find":
                sequence.gazes["holder"].append((first, holders(question, sights)))
            if question.subject:
                subject = first + 1 - len(asked) + asked.index(self._word[question.subject])
                sequence.gazes["subject"].append((first, [subject]))
            sequence.targets += [(first + step, token) for step, token in enumerate(answer)]
            sequence.tasks += [question.task, *[None] * (len(answer) - 1)]
        return sequence


def _stack(sequences: Sequence[_Sequence]) -> Batch:
    length = max(len(sequence.token_ids) for sequence in sequences)
    num_axes = len(sequences[0].positions[0])
    token_ids = torch.zeros(len(sequences), length, dtype=torch.long)
    features = torch.full_like(token_ids, -1)
    blocks = torch.zeros_like(token_ids)
    positions = torch.zeros(num_axes, len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        end = len(sequence.token_ids)
        token_ids[row, :end] = torch.tensor(sequence.token_ids)
        features[row, :end] = torch.tensor(sequence.features)
        blocks[row, :end] = torch.tensor(sequence.blocks)
        positions[:, row, :end] = torch.cat(sequence.positions, dim=1)
    # Block 0 is the window, which every question sees. A block below 0 is a question asked alone: only its own tokens
    # see it. A block above 0 is a question in a row: the later ones see it.
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = blocks[:, :, None], blocks[:, None, :]
    mask = causal & ((key == 0) | (key == query) | ((key > 0) & (key < query)))
    targets = torch.tensor([(row, *target) for row, s in enumerate(sequences) for target in s.targets]).T
    cells = [(row, place, relation) for row, s in enumerate(sequences) for place, relation in s.cells]
    labels = torch.tensor([[CLASSES[word] for word in relation] for _, _, relation in cells])
    places = torch.tensor([(row, place) for row, place, _ in cells]).T
    return Batch(
        token_ids,
        features,
        positions,
        mask[:, None],
        (targets[0], targets[1], targets[2]),
        [task for sequence in sequences for task in sequence.tasks],
        (places[0], places[1]),
        labels,
        {gaze: _gather(sequences, gaze) for gaze in GAZES},
    )


def _gather(
    sequences: Sequence[_Sequence], gaze: Gaze
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    queries = [(row, place, keys) for row, sequence in enumerate(sequences) for place, keys in sequence.gazes[gaze]]
    flat = [(query, row, place, key) for query, (row, place, keys) in enumerate(queries) for key in keys]
    columns = torch.tensor(flat, dtype=torch.long).reshape(-1, 4).T
    return columns[0], columns[1], columns[2], columns[3]
