"""The trace: the windows and questions of the demo's agent, turn by turn.

The agent watches a yard and the screens of a shop. Its window holds four chunks: `yard1` to `yard6` are groups of
two video frames, `page1` to `page6` are screens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.tasks import Question, Task, ask

Action = Literal["see", "reorder", "recall"]

TASK = "Watch the screens."


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    action: "see" a new chunk, which enters at the end; "reorder" the window; "recall" a chunk that was dropped
        earlier, to the front.
    window: names of the chunks, in order. task: kind of the question about them. word: a word of the question.
    """

    action: Action
    window: tuple[str, ...]
    task: Task
    word: str = ""

    def question(self, pictures: Mapping[str, Picture]) -> Question:
        """The first question of the task that contains the word."""
        return next(
            question
            for question in ask([pictures[name] for name in self.window])
            if question.task == self.task and self.word in question.text
        )

    @property
    def event(self) -> str:
        """The action and its chunk, for the table."""
        return {
            "see": f"see {self.window[-1]}",
            "reorder": "reorder",
            "recall": f"recall {self.window[0]}",
        }[self.action]


TRACE = (
    Turn("see", ("yard1",), "track"),
    Turn("see", ("yard1", "yard2"), "track", "often"),
    Turn("see", ("yard1", "yard2", "page1"), "read"),
    Turn("see", ("yard1", "yard2", "page1", "page2"), "diff"),
    Turn("see", ("yard2", "page1", "page2", "yard3"), "count"),
    Turn("reorder", ("page1", "page2", "yard2", "yard3"), "diff"),
    Turn("see", ("page2", "yard2", "yard3", "page3"), "read", "owns"),
    Turn("recall", ("yard1", "yard2", "yard3", "page3"), "track", "often"),
    Turn("see", ("yard2", "yard3", "page3", "yard4"), "track", "now"),
    Turn("see", ("yard3", "page3", "yard4", "page4"), "join2"),
    Turn("see", ("page3", "yard4", "page4", "yard5"), "join2"),
    Turn("recall", ("page2", "yard4", "page4", "yard5"), "find"),
    Turn("see", ("yard4", "page4", "yard5", "page5"), "join2"),
    Turn("reorder", ("page4", "page5", "yard4", "yard5"), "join2"),
    Turn("see", ("page5", "yard4", "yard5", "yard6"), "track", "often"),
    Turn("see", ("yard4", "yard5", "yard6", "page6"), "find"),
)

# The process ends after this many turns. The next one has nothing but the folder of the store.
RESTART_AFTER = 8
