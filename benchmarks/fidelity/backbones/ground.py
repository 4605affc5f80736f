"""The cases of the backbones: tasks about screens with fewer words, in one look, with stems for questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.fidelity.backbones.models import COLUMNS
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.cases import SCENES, Ground, Scene
from kamera_agent.chunk import TextRun
from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.style import TRAIN_FONTS, TRAIN_THEMES, Looks
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.world import Size

TASKS: tuple[Task, ...] = ("read", "find", "diff", "join2", "join3")

# A question is a stem and its subject, and the answer follows at once. This halves the tokens, and the subject is
# next to the answer. With whole sentences, training takes several times as long.
STEMS = {
    "What does the {} cost?": "cost",
    "Who owns the {}?": "owner",
    "Where is {}?": "where",
    "Which key opens the {}?": "opens",
    "Which screen shows {}?": "screen",
    "Which price changed?": "changed",
    "Where is the owner of the {}?": "where owner",
    "Which key does {} need?": "key need",
    "Which key does the owner of the {} need?": "key owner",
}


def ask_in_stems(window: Sequence[Picture]) -> list[Question]:
    """Every question of TASKS that has exactly one answer in the window."""
    return [replace(question, text=_stem(question)) for question in ask(window) if question.task in TASKS]


def _stem(question: Question) -> str:
    """The stem and subject of a question, with a space before each word, as within a text."""
    if not question.subject:
        return f" {STEMS[question.text]}"
    return f" {STEMS[question.text.replace(f' {question.subject}', ' {}')]} {question.subject}"


GROUND = Ground(
    {
        "one_change": SCENES["one_change"],
        "sights": Scene("changes", {"read": 2, "find": 2}),
        "joins": SCENES["joins"],
    },
    Size(((COLUMNS, COLUMNS),), min_cards=5, max_cards=8, num_words=8),
    Looks(TRAIN_FONTS[1:2], TRAIN_THEMES[:1], label_sizes=(12,), value_sizes=(15,), jpeg_qualities=(95,), jitter=0),
    ask_in_stems,
)


class StemBench(Bench):
    """A bench whose questions have no chat turns around them."""

    def ask(self, text: str) -> TextRun:
        return TextRun(self.engine.family.tokens.encode(text))
