"""Events in windows of a Kamera, and the KV that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.fidelity.events import Script
from benchmarks.fidelity.live import Live
from benchmarks.fidelity.state import KV
from benchmarks.real.weights import Weights
from kamera_agent import Kamera, Window
from kamera_agent.config import SettingOptions
from kamera_agent.window.content import Content, DocumentContent
from kamera_agent.window.plan import Plan


class Left(NamedTuple):
    """KV of the documents of a window, and the share of it, in tokens times layers, that a turn computed again."""

    kv: list[KV]
    recomputed: float


class LiveDocuments(Live):
    """A Kamera that plays one event with documents, under the same rules as with pictures.

    An event that begins with a new window begins after a restart, too.
    """

    def __init__(self, weights: Weights, store: Path, settings: SettingOptions) -> None:
        """store: an empty folder. settings: those that are not the defaults."""
        self._open = partial(Kamera, *weights, store, **settings)
        self._kamera = self._open()

    def leave(self, script: Script, texts: Sequence[str]) -> list[Left]:
        """What the turn of the event leaves, and the next one once the window has healed, if it heals."""
        contents = [DocumentContent(text) for text in texts]
        window = self._lead_up(script, contents)
        left = self._now_and_healed(partial(_leave, window, [contents[index] for index in script.after]))
        self._kamera.close()
        return left

    def _begin_anew(self) -> Window:
        self._kamera.close()
        self._kamera = self._open()
        return self._kamera.window()


def _leave(window: Window, shown: Sequence[Content]) -> Left:
    window.sync(shown)
    reply = window.generate(max_tokens=1)
    residence = window._assembly.residence
    kv: list[KV] = [
        residence.pool.read(there.slots) for there in residence.residents if there.place.item.kind == "document"
    ]
    return Left(kv, _computed_share(reply.plan))


def _computed_share(plan: Plan) -> float:
    rows = [row for row in plan.rows if row.kind == "document"]
    computed = sum(row.num_computed for row in rows)
    return computed / sum(row.num_tokens for row in rows)
