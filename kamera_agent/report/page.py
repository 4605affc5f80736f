"""The page of a trace."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from statistics import median

from kamera_agent.errors import InputError
from kamera_agent.report.account import Turn
from kamera_agent.report.drift import drift_table

TEMPLATE = "page.html"


def make_page(turns: Sequence[Turn], title: str, note: str = "") -> str:
    """One HTML file, complete in itself. note: HTML that follows the chart.

    Raises InputError for a trace without answers.
    """
    if not turns:
        raise InputError(f"The trace {title} holds no answer; pass one that an agent has written to.")
    template = files("kamera_agent.report").joinpath(TEMPLATE).read_text("utf-8")
    # The browser ends a script at "</", so no string of a trace may contain it.
    data = json.dumps([asdict(turn) for turn in turns]).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(title),
        "TILES": "".join(_tiles(turns)),
        "DRIFT": note + drift_table(turns),
        "TURNS": data,
    }
    # In one pass: a part may hold the name of another.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: parts[place[1]], template)


def _tiles(turns: Sequence[Turn]) -> list[str]:
    computed, prefix, full = (sum(getattr(turn, name) for turn in turns) for name in ("computed", "prefix", "full"))
    first = median(turn.record.timings.first_token_ms for turn in turns)
    usages = [turn.record.usage for turn in turns]
    read, written = sum(usage.bytes_read for usage in usages), sum(usage.bytes_written for usage in usages)
    pool = max(turn.record.memory.pool_bytes for turn in turns)
    dropped = max(turn.record.memory.dropped_bytes for turn in turns)
    encoded, saved = sum(usage.encoder_calls for usage in usages), sum(usage.encoder_avoided for usage in usages)
    return [
        _tile("answers", str(len(turns))),
        _tile("tokens computed", f"{computed:,}", f"of {full:,} in the windows"),
        _tile("a prefix cache", f"{prefix:,}", f"{prefix / max(computed, 1):.1f} times as many"),
        _tile("first token", f"{first:,.0f} ms", "median"),
        _tile("images encoded", str(encoded), f"{saved} times saved"),
        _tile("read from store", f"{read / 1e6:,.1f} MB", f"{written / 1e6:,.1f} MB written"),
        _tile("largest window", f"{pool / 1e6:,.1f} MB", f"{dropped / 1e6:,.1f} MB for recall"),
    ]


def _tile(name: str, figure: str, more: str = "") -> str:
    return f"<div class=tile><h2>{html.escape(name)}</h2><b>{html.escape(figure)}</b><p>{html.escape(more)}</p></div>"
