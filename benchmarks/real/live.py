"""Events in windows of a Kamera, and the KV that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.fidelity.bench import KV
from benchmarks.fidelity.events import Script
from benchmarks.real.weights import Weights
from kamera_agent import Kamera
from kamera_agent.config import SettingOptions
from kamera_agent.window.content import DocumentContent
from kamera_agent.window.plan import Plan
from kamera_agent.window.window import Window


class Left(NamedTuple):
    """KV of the documents of a window, and the share of it, in tokens times layers, that the event's turn computed."""

    kv: list[KV]
    recomputed: float


def play(weights: Weights, settings: SettingOptions, script: Script, texts: Sequence[str]) -> Left:
    """What is left in the window after the event, in a Kamera of these settings with a store of its own on disk.

    An event that begins with a new window begins after a restart, too.
    """
    documents = [DocumentContent(text) for text in texts]
    with TemporaryDirectory() as folder:
        kamera = Kamera(*weights, Path(folder), **settings)
        try:
            window = kamera.window()
            for turn in script.before:
                window.sync([documents[index] for index in turn])
                window.logits()
                kamera.flush()
            if script.anew:
                kamera.close()
                kamera = Kamera(*weights, Path(folder), **settings)
                window = kamera.window()
            window.sync([documents[index] for index in script.after])
            reply = window.generate(max_tokens=1)
            return Left(_documents(window), _computed_share(reply.plan))
        finally:
            kamera.close()


def _computed_share(plan: Plan) -> float:
    rows = [row for row in plan.rows if row.kind == "document"]
    computed = sum(row.num_tokens * (1.0 if row.origin == "computed" else row.refreshed) for row in rows)
    return computed / sum(row.num_tokens for row in rows)


def _documents(window: Window) -> list[KV]:
    assembly = window._assembly
    return [assembly.pool.read(there.slots) for there in assembly.residents if there.item.kind == "document"]
