"""The page of a server: which windows are live, and what the last answers cost."""

from __future__ import annotations

import html
import threading
from collections import deque
from collections.abc import Sequence

from kamera_agent.report.account import account
from kamera_agent.report.page import make_page
from kamera_agent.telemetry.record import AnswerRecord, plain_record
from kamera_agent.turns.conversations import Standing
from kamera_agent.window.reply import Reply

# Of all namespaces together.
MAX_ANSWERS = 200
HEADS = ("conversation", "answers", "images of the last", "MB", "busy")
EMPTY = "<!doctype html><meta charset=utf-8><title>{0}</title><h1>{0}</h1><p>No answer has been given yet.</p>{1}"


class Recent:
    """The last answers, by namespace: no text of a prompt or a reply. Safe for use from several threads."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._answers: deque[tuple[str | None, AnswerRecord]] = deque(maxlen=MAX_ANSWERS)
        self._lock = threading.Lock()

    def note(self, namespace: str | None, conversation: str, reply: Reply) -> None:
        """Note an answer."""
        record = plain_record(reply, conversation, self._model_name)
        with self._lock:
            self._answers.append((namespace, record))

    def page(self, namespace: str | None, live: Sequence[Standing]) -> str:
        """The page of a namespace as HTML. live: its windows."""
        with self._lock:
            records = [record for theirs, record in self._answers if theirs == namespace]
        title, table = f"kamera serve {self._model_name}", _table(live)
        if not records:
            return EMPTY.format(html.escape(title), table)
        return make_page(account(records), title, table)


def _table(live: Sequence[Standing]) -> str:
    rows = [
        (
            each.conversation,
            each.num_calls,
            each.num_images,
            f"{each.num_bytes / 1e6:.1f}",
            "yes" if each.is_busy else "",
        )
        for each in live
    ]
    lines = [f"<tr>{''.join(f'<th>{head}</th>' for head in HEADS)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f'<h3>Live windows</h3><div class="plan" id="live"><table>{"".join(lines)}</table></div>'
