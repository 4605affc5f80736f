"""Nearly the same page again, with near="tiles", on the trained pocket model: what is computed, and what is answered.

    python -m benchmarks.near --json [--cases 60]

A case is a page of prices, a screen of another kind, and the page again under another title and with one to three other
prices. The first two are in the window when the page comes again; nothing is healed.

computed   mean share of the tokens of the page that are computed, by the number of prices that changed
tasks      by task: questions, and the right answers of a full prefill and of the window
kl         mean divergence of its next-token distribution from that of the full prefill, in nats
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.command import parser_of, show, versions
from kamera_agent import Kamera
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.words import NUMBERS, TITLES
from kamera_agent.pocket.world import World
from kamera_agent.telemetry.drift import divergence

TASKS: tuple[Task, ...] = ("diff", "count", "find", "read")
MAX_CHANGED = 3


class Case(NamedTuple):
    """Three screens, of which the last is nearly the first, and a question of each task that they can answer."""

    screens: tuple[Screen, Screen, Screen]
    num_changed: int
    questions: tuple[Question, ...]


class Answer(NamedTuple):
    """Whether a full prefill and the window answer rightly, and the divergence of the window in nats."""

    task: Task
    full: bool
    tiled: bool
    kl: float


class Played(NamedTuple):
    """A case: the prices that changed, the share of the page's tokens that were computed, and the answers."""

    num_changed: int
    computed: float
    answers: list[Answer]


def draw_case(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    screens = [picture for picture in World(rng).window("changes", 3) if isinstance(picture, Screen)]
    page = next(screen for screen in screens if screen.kind == "prices")
    other = next(screen for screen in screens if screen.kind != "prices")
    num_changed = 1 + seed % MAX_CHANGED
    cards = [*page.cards]
    for index in rng.permutation(len(cards))[:num_changed]:
        cards[index] = replace(cards[index], value=_another(rng, NUMBERS, cards[index].value))
    title = _another(rng, TITLES, page.title, other.title)
    window = page, other, replace(page, title=title, cards=tuple(cards))
    asked = ask(window)
    fitting = ([question for question in asked if question.task == task] for task in TASKS)
    return Case(window, num_changed, tuple(some[rng.integers(len(some))] for some in fitting if some))


def _another(rng: np.random.Generator, words: Sequence[str], *taken: str) -> str:
    return str(rng.choice([word for word in words if word not in taken]))


def play(kamera: Kamera, case: Case) -> Played:
    """Let a window see the page again, and ask about it."""
    window = kamera.window()
    *before, again = (draw(screen)[0] for screen in case.screens)
    for pixels in before:
        window.add_image(pixels)
    window.logits()
    page = window.add_image(again)
    row = next(row for row in window.plan().rows if row.id == page)
    assert row.origin == "tiled"
    answers = []
    for question in case.questions:
        tiled, full = window.logits(question.text), window.reference_logits(question.text)
        [expected, *_] = kamera.family.tokens.encode(question.answer)
        right = (int(logits.argmax()) == expected for logits in (full, tiled))
        answers.append(Answer(question.task, *right, divergence(full, tiled)))
    return Played(case.num_changed, row.refreshed, answers)


def summarise(played: Sequence[Played]) -> dict[str, Any]:
    """The figures of all cases."""
    changed = range(1, MAX_CHANGED + 1)
    shares = {number: [one.computed for one in played if one.num_changed == number] for number in changed}
    by_task = {task: [answer for one in played for answer in one.answers if answer.task == task] for task in TASKS}
    return {
        "computed": {number: round(mean(some), 4) for number, some in shares.items() if some},
        "tasks": {
            task: {
                "questions": len(answers),
                "full": sum(answer.full for answer in answers),
                "tiled": sum(answer.tiled for answer in answers),
                "kl": round(mean(answer.kl for answer in answers), 4),
            }
            for task, answers in by_task.items()
            if answers
        },
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=60, help="windows (default 60)")
    options = parser.parse_args()
    with Kamera.pocket(near="tiles", heal="never") as kamera:
        figures = summarise([play(kamera, draw_case(seed)) for seed in range(options.cases)])
    conditions = {
        "model": "pocket",
        "dtype": "float32",
        "cases": options.cases,
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    show({**figures, "conditions": conditions}, options.json)


if __name__ == "__main__":
    main()
