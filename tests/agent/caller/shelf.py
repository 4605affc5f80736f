"""Batches of pages of about the same length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kamera_agent.runtime.families.base import Family

from .lessons import Course, Teacher
from .page import Page, make_page
from .pupil import Batch

# Tokens per batch, and batches that are filled at a time.
BATCH_TOKENS, NUM_BATCHES = 3000, 8


class Shelf:
    """A source of batches of new lessons."""

    def __init__(self, family: Family, rng: np.random.Generator) -> None:
        self._family = family
        self._rng = rng
        self._batches: list[list[Page]] = []

    def take(self, course: Course) -> Batch:
        """The next batch. A new course begins when the present batches are used up."""
        if not self._batches:
            self._batches = [*_cut(self._fill(course))]
            self._rng.shuffle(self._batches)
        return Batch.of(self._batches.pop())

    def _fill(self, course: Course) -> list[Page]:
        teacher, pages, room = Teacher(self._rng, course), [], NUM_BATCHES * BATCH_TOKENS
        while room > 0:
            pages.append(make_page(self._family, teacher.lesson()))
            room -= len(pages[-1].token_ids)
        return sorted(pages, key=lambda page: len(page.token_ids))


def _cut(pages: list[Page]) -> Iterator[list[Page]]:
    batch: list[Page] = []
    for page in pages:
        if batch and (len(batch) + 1) * len(page.token_ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(page)
    yield batch
