"""The trace: what the agent of the demo sees and asks, turn by turn.

It counts the people in a yard and looks up how to keep the counts in a database. Its window holds four chunks:
`yard1` to `yard6` are groups of two video frames, `page1` to `page6` screenshots of manuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["see", "reorder", "recall"]

TASK = "Count the people in the yard and keep the counts in an SQLite database."


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    action: "see" a new chunk, which enters at the end; "reorder" what is there; "recall" a chunk that was
        dropped earlier, to the front, where its stored patch fits whatever stands behind.
    window: names of the chunks, in order.
    """

    action: Action
    window: tuple[str, ...]
    question: str

    @property
    def event(self) -> str:
        """The action and its chunk, for people."""
        return {
            "see": f"see {self.window[-1]}",
            "reorder": "reorder",
            "recall": f"recall {self.window[0]}",
        }[self.action]


TRACE = (
    Turn("see", ("yard1",), "How many people are in the yard?"),
    Turn("see", ("yard1", "yard2"), "Are they the same people?"),
    Turn("see", ("yard1", "yard2", "page1"), "Which chapter is about databases?"),
    Turn("see", ("yard1", "yard2", "page1", "page2"), "Which call opens a database?"),
    Turn("see", ("yard2", "page1", "page2", "yard3"), "How many people are there now?"),
    Turn("reorder", ("page1", "page2", "yard2", "yard3"), "Seen side by side: who has left?"),
    Turn("see", ("page2", "yard2", "yard3", "page3"), "Which column type suits a count?"),
    Turn("recall", ("yard1", "yard2", "yard3", "page3"), "How many more are there than at first?"),
    Turn("see", ("yard2", "yard3", "page3", "yard4"), "How many people are there now?"),
    Turn("see", ("yard3", "page3", "yard4", "page4"), "How is the largest count selected?"),
    Turn("see", ("page3", "yard4", "page4", "yard5"), "How many people are there now?"),
    Turn("recall", ("page2", "yard4", "page4", "yard5"), "How was a row inserted?"),
    Turn("see", ("yard4", "page4", "yard5", "page5"), "Does a search by time need an index?"),
    Turn("reorder", ("page4", "page5", "yard4", "yard5"), "Seen side by side: which way do they walk?"),
    Turn("see", ("page5", "yard4", "yard5", "yard6"), "How many people are there now?"),
    Turn("see", ("yard4", "yard5", "yard6", "page6"), "Which part of SQLite writes to the disk?"),
)

# The process ends after this many turns and another one takes over, with nothing but the store's folder.
RESTART_AFTER = 8
