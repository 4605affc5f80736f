"""The page of a trace."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from statistics import median

from kamera_agent.errors import InputError
from kamera_agent.report.account import Turn

TEMPLATE = "page.html"


def make_page(turns: Sequence[Turn], title: str) -> str:
    """HTML that needs nothing from elsewhere. Raises InputError for a trace without answers."""
    if not turns:
        raise InputError(f"The trace {title} holds no answer yet.")
    template = files("kamera_agent.report").joinpath(TEMPLATE).read_text("utf-8")
    # A script's text ends at "</": no text in a trace must be able to write that.
    data = json.dumps([asdict(turn) for turn in turns]).replace("<", "\\u003c")
    parts = {"TITLE": html.escape(title), "TILES": "".join(_tiles(turns)), "TURNS": data}
    for name, part in parts.items():
        template = template.replace(f"{{{{{name}}}}}", part)
    return template


def _tiles(turns: Sequence[Turn]) -> list[str]:
    computed, prefix, full = (sum(getattr(turn, name) for turn in turns) for name in ("computed", "prefix", "full"))
    first = median(turn.record["timings"]["first_token_ms"] for turn in turns)
    usage = [turn.record["usage"] for turn in turns]
    read, written = (sum(spent[name] for spent in usage) for name in ("bytes_read", "bytes_written"))
    memory = [turn.record["memory"] for turn in turns]
    pool, dropped = (max(held[name] for held in memory) for name in ("pool_bytes", "dropped_bytes"))
    return [
        _tile("answers", str(len(turns))),
        _tile("tokens computed", f"{computed:,}", f"of {full:,} in the windows"),
        _tile("a prefix cache", f"{prefix:,}", f"{prefix / max(computed, 1):.1f} times as many"),
        _tile("first token", f"{first:,.0f} ms", "median"),
        _tile("images encoded", str(sum(spent["encoder_calls"] for spent in usage)), _spared(usage)),
        _tile("read from store", f"{read / 1e6:,.1f} MB", f"{written / 1e6:,.1f} MB written"),
        _tile("largest window", f"{pool / 1e6:,.1f} MB", f"{dropped / 1e6:,.1f} MB for recall"),
    ]


def _spared(usage: Sequence[dict[str, int]]) -> str:
    return f"{sum(spent['encoder_avoided'] for spent in usage)} times spared"


def _tile(name: str, figure: str, more: str = "") -> str:
    return f"<div class=tile><h2>{html.escape(name)}</h2><b>{html.escape(figure)}</b><p>{html.escape(more)}</p></div>"
