"""Second stage: the decoder learns the tasks over windows that are assembled from cell features."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from kamera_agent.pocket.screen import CELL, SHOT_TIMES, Picture, Screen
from kamera_agent.pocket.style import Looks
from kamera_agent.pocket.tasks import TASKS, Question, Task, ask
from kamera_agent.pocket.words import SHOWN
from kamera_agent.pocket.world import STORIES, Story, World
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.decoder import ATTENDING, FULL, SLIDING
from kamera_agent.runtime.families.per_layer import PerLayer
from training.attention import install
from training.batch import Batch, Batcher, Lesson, Shown
from training.gallery import chunk_of
from training.gaze import gaze_loss
from training.probes import Probes
from training.recipe import Course
from training.relations import Relations
from training.start import word_ids

# The probes read the output of the first full layers; those above are left to the question.
PROBED_LAYERS = 3
PROBE_WEIGHT = 0.5
GAZE_WEIGHT = 1.0

# The most questions of each task about one window, unless a course asks more.
QUOTA: dict[Task, int] = {"read": 2, "find": 2, "diff": 1, "count": 1, "join2": 2, "join3": 3, "track": 3}
LEAST_PICTURES: dict[Story, int] = {"changes": 2, "links": 1, "moves": 1, "both": 4, "day": 2}

Asking = Callable[[Sequence[Picture]], list[Question]]


class Features(Protocol):
    """A source of picture features."""

    table: torch.Tensor

    def rows(self, picture: Picture, rng: np.random.Generator) -> Sequence[int]:
        """Rows of the table, one per cell."""


class Decoder:
    """The decoder of a family in training, with its probes."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.text: Any = family.decoder.module
        install(self.text.config)
        self._words = word_ids(family.processors.tokenizer, SHOWN)
        self._kinds = family.decoder.kinds
        full = [number for number, kind in enumerate(self._kinds) if kind == FULL]
        self._probed = full[PROBED_LAYERS - 1] + 1
        self.probes = Probes(self.text.config.hidden_size, len(Relations._fields))

    def loss(self, batch: Batch, table: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the losses of the answers, the probes and the gazes."""
        output = self._run(batch, table)
        answers = functional.cross_entropy(self._scores(output, batch), batch.targets[2])
        codes = self.text.embed_tokens.weight.detach()[self._words]
        probes = self.probes.loss(output.hidden_states[self._probed][batch.cells], codes, batch.labels)
        # Recurrent layers have no attention to record.
        attending = [kind for kind in self._kinds if kind in ATTENDING]
        full = [weights for kind, weights in zip(attending, output.attentions, strict=True) if kind == FULL]
        return answers + PROBE_WEIGHT * probes + GAZE_WEIGHT * gaze_loss(full, batch.gazes)

    @torch.no_grad()
    def grade(self, batch: Batch, table: torch.Tensor) -> tuple[Counter[str], Counter[str]]:
        """Right answers and all questions, by task. An answer is judged by its first token."""
        right = self._scores(self._run(batch, table), batch).argmax(-1) == batch.targets[2]
        asked = [(task, hit) for task, hit in zip(batch.tasks, right.tolist(), strict=True) if task]
        return Counter(task for task, hit in asked if hit), Counter(task for task, _ in asked)

    def _scores(self, output: Any, batch: Batch) -> torch.Tensor:
        states = output.last_hidden_state[batch.targets[0], batch.targets[1]]
        return self._family.logits(states)

    def _run(self, batch: Batch, table: torch.Tensor) -> Any:
        seen, width = batch.features >= 0, self.text.config.hidden_size
        # Features of deepstack are wider than embeddings.
        embeds = functional.pad(self.text.embed_tokens(batch.token_ids), (0, table.shape[1] - width))
        embeds = embeds.masked_scatter(seen[..., None], table[batch.features[seen]])
        if isinstance(self._family, PerLayer):
            padding = self.text.config.pad_token_id
            embeds = self._family.pack(embeds, batch.token_ids.masked_fill(seen, padding))
        first, extras = self._family.unpack(embeds)
        return self.text(
            inputs_embeds=first,
            position_ids=batch.positions if len(batch.positions) > 1 else batch.positions[0],
            attention_mask=self._masks(batch.mask),
            use_cache=False,
            output_hidden_states=True,
            output_attentions=True,
            **extras,
        )

    def _masks(self, seen: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor | None]:
        """What is added to scores, for a mask [B, 1, S, S]: one tensor, or one per kind where there are several.

        Recurrent layers have none. They go through all questions of a sequence in a row.
        """
        if {*self._kinds} == {FULL}:
            return _added(seen)
        masks: dict[str, torch.Tensor | None] = {**dict.fromkeys(self._kinds), FULL: _added(seen)}
        if SLIDING in masks:
            # Of the tokens that a query sees, the last ones: other questions may be between them.
            place = seen.flip(-1).cumsum(-1).flip(-1)
            masks[SLIDING] = _added(seen & (place <= self._family.decoder.window_tokens))
        return masks


def _added(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)


class Lessons:
    """Makes batches of windows and questions about them."""

    def __init__(
        self, family: Family, features: Features, ask: Asking = ask, asked: Sequence[int] | None = None
    ) -> None:
        """ask: returns the questions of a window. asked: tokens between a question and its answer; None: the chat's."""
        self._family, self._features, self._ask = family, features, ask
        self._batcher = Batcher(family, family.chat.turn("user", "assistant") if asked is None else asked)
        self._shown: dict[tuple[type[Picture], int, int], Shown] = {}

    def batch(
        self,
        windows: Sequence[Sequence[Picture]],
        rng: np.random.Generator,
        tasks: Sequence[Task] = TASKS,
        times: int = 1,
    ) -> Batch:
        """A batch of windows with questions of these tasks. rng draws the questions, the remarks and the features.

        times: how many times as many questions as QUOTA has.
        """
        lessons = [
            Lesson(window, [self._show(picture, rng) for picture in window], self._choose(window, tasks, times, rng))
            for window in windows
        ]
        return self._batcher.make(lessons, rng)

    def _choose(
        self, window: Sequence[Picture], tasks: Sequence[Task], times: int, rng: np.random.Generator
    ) -> list[Question]:
        by_task: defaultdict[Task, list[Question]] = defaultdict(list)
        for question in self._ask(window):
            if question.task in tasks:
                by_task[question.task].append(question)
        drawn = [
            some[index] for task, some in by_task.items() for index in rng.permutation(len(some))[: times * QUOTA[task]]
        ]
        return [drawn[index] for index in rng.permutation(len(drawn))]

    def _show(self, picture: Picture, rng: np.random.Generator) -> Shown:
        key = (type(picture), picture.columns, picture.rows)
        if key not in self._shown:
            self._shown[key] = _lay_out(self._family, picture)
        return self._shown[key]._replace(rows=self._features.rows(picture, rng))


def draw_windows(count: int, course: Course, rng: np.random.Generator, looks: Looks) -> list[list[Picture]]:
    """Windows of a course, as data."""
    world = World(rng, course.size, looks)
    windows = []
    for index in rng.choice(len(STORIES), size=count, p=course.shares):
        story = STORIES[index]
        windows.append(world.window(story, max(int(rng.choice(course.pictures)), LEAST_PICTURES[story])))
    return windows


def _lay_out(family: Family, picture: Picture) -> Shown:
    """Tokens and offsets of a picture of this size, from the chunk of a blank one."""
    num_frames = 1 if isinstance(picture, Screen) else len(SHOT_TIMES)
    chunk = chunk_of(family, np.zeros((num_frames, picture.rows * CELL, picture.columns * CELL, 3), dtype=np.uint8))
    return Shown(
        chunk.token_ids, chunk.offsets, chunk.extent, family.placeholders(chunk).nonzero().flatten().tolist(), ()
    )
