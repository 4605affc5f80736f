"""Two windows that get the same edits: one leaves stale spans as they are, the other refreshes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks.baselines import Baselines, Figures, Pixels, median_ratio, medians
from benchmarks.session import PARTS, Session, parts_of

Edit = Callable[[], object]
# Gives the edit of a session; what goes before the edit is done at once.
Prepare = Callable[[Session], Edit]


class Pair(NamedTuple):
    """The sessions of Kameras with stale="keep", which is measured as ours, and with stale="refresh"."""

    kept: Session
    refreshed: Session

    def answer(self, prepare: Prepare) -> None:
        """Let both answer after an edit."""
        for session in self:
            session.answer(prepare(session))

    def measure(self, prepare: Prepare, baselines: Baselines, num_new: int, *, refreshed_first: bool) -> Figures:
        """The figures of Session.measure, and those of the window that refreshes."""
        num_bare = baselines.num_bare(num_new)
        refreshed = self._refreshed(prepare, num_bare) if refreshed_first else {}
        ours = self.kept.measure(prepare(self.kept), baselines, num_new)
        return ours | (refreshed or self._refreshed(prepare, num_bare))

    def _refreshed(self, prepare: Prepare, num_bare: int) -> Figures:
        """The time of the turn with its parts, and how many tokens it computed again, besides the new ones."""
        ms, reply = self.refreshed.answer(prepare(self.refreshed))
        self.refreshed.kamera.flush()
        parts = parts_of(ms, reply)
        times = {f"refreshed_{part}": parts[part] for part in PARTS}
        return {"refreshed": ms, "tokens_refreshed": reply.plan.num_computed - num_bare, **times}


def slide(new: Pixels, session: Session) -> Edit:
    """A new picture comes, and the oldest goes."""
    return partial(session.see, new)


def reorder(session: Session) -> Edit:
    """All pictures change places."""
    return partial(session.window.reorder, session.ids[::-1])


def recall(session: Session) -> Edit:
    """The oldest picture comes back. It is dropped at once, and a turn is answered without it."""
    oldest, second = session.ids[:2]
    session.answer(partial(session.window.drop, oldest))
    session.kamera.flush()
    return partial(session.window.recall, oldest, at=second)


def summarise(figures: Sequence[Figures], ways: Sequence[str]) -> dict[str, Any]:
    """Medians over the rounds of one event: of some ways, of the parts of a turn, and of the refreshed turn."""
    parts = [*PARTS, *(f"refreshed_{part}" for part in PARTS)]
    names = [name for name in (*ways, "refreshed", *parts) if name in figures[0]]
    numbers = {name: int(figures[0][name]) for name in ("bytes_read", "tokens_refreshed")}
    ratio = {"refreshed": median_ratio(figures, "refreshed", "ours")} if "refreshed" in figures[0] else {}
    return medians(figures, names) | numbers | ratio
