"""The trace: what the demo's agent does, turn by turn, and what it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.tasks import TASKS, Question, ask

# see: a new picture enters at the end. revisit: so does one that was seen before. look back: one that was dropped comes
# back to the front in place of the oldest. reorder: the shots of the yard come after the pages.
Action = Literal["see", "revisit", "look back", "reorder"]

TASK = "Watch the screens."


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what the agent does, with which picture, and the names of the pictures in its window, in order."""

    action: Action
    name: str
    window: tuple[str, ...]

    @property
    def event(self) -> str:
        """The action and its picture, for the table."""
        return f"{self.action} {self.name}".rstrip()


def follow(day: str, in_sight: int) -> tuple[Turn, ...]:
    """The turns of a day, whose windows hold the last in_sight pictures.

    day: the names of the pictures as they are seen. "<name" looks back, "~" reorders.
    """
    turns: list[Turn] = []
    window: tuple[str, ...] = ()
    for word in day.split():
        name = word.strip("<~")
        action: Action
        if word == "~":
            action, window = "reorder", tuple(sorted(window, key=lambda shown: shown.startswith("yard")))
        elif word.startswith("<"):
            action, window = "look back", (name, *window[1:])
        else:
            action = "revisit" if any(turn.name == name for turn in turns) else "see"
            window = (*window, name)[-in_sight:]
        turns.append(Turn(action, name, window))
    return tuple(turns)


def question_of(turn: Turn, number: int, pictures: Mapping[str, Picture]) -> Question:
    """A question about the window of a turn. number: of the turn; the tasks take turns as far as the window allows."""
    questions = ask([pictures[name] for name in turn.window])
    first = number % len(TASKS)
    for task in (*TASKS[first:], *TASKS[:first]):
        if some := [question for question in questions if question.task == task]:
            return some[number % len(some)]
    raise ValueError(f"Nothing can be asked about {turn.window}.")
