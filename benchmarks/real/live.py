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
from kamera_agent.window.window import Window


class Left(NamedTuple):
    """KV of the documents of a window, and the share of their tokens that the turn of the event computed."""

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
            recomputed = _recomputed_share(window)
            window.logits()
            return Left(_documents(window), recomputed)
        finally:
            kamera.close()


def _recomputed_share(window: Window) -> float:
    rows = [row for row in window.plan().rows if row.kind == "document"]
    return sum(row.num_tokens for row in rows if row.origin == "computed") / sum(row.num_tokens for row in rows)


def _documents(window: Window) -> list[KV]:
    assembly = window._assembly
    return [assembly.pool.read(there.slots) for there in assembly.residents if there.item.kind == "document"]
