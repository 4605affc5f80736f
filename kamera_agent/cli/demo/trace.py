"""The trace: what the agent of the demo sees and asks, turn by turn.

It keeps an eye on a yard and on the screens of a shop. Its window holds four chunks: `yard1` to `yard6` are groups of
two video frames, `page1` to `page6` screens.
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

    action: "see" a new chunk, which enters at the end; "reorder" what is there; "recall" a chunk that was
        dropped earlier, to the front, where its stored patch fits whatever stands behind.
    window: names of the chunks, in order. task: what is asked about them; word: one that the question holds.
    """

    action: Action
    window: tuple[str, ...]
    task: Task
    word: str = ""

    def question(self, pictures: Mapping[str, Picture]) -> Question:
        """The first question of the task over the window."""
        return next(
            question
            for question in ask([pictures[name] for name in self.window])
            if question.task == self.task and self.word in question.text
        )

    @property
    def event(self) -> str:
        """The action and its chunk, for people."""
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

# The process ends after this many turns and another one takes over, with nothing but the store's folder.
RESTART_AFTER = 8
