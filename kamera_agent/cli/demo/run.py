"""The demo: plays the trace, prints it and writes its files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner

from kamera_agent.chunk import Header
from kamera_agent.cli.console import make_console
from kamera_agent.cli.demo.meter import NAMESPACE
from kamera_agent.cli.demo.process import run_part
from kamera_agent.cli.demo.result import Totals, TurnResult, as_report
from kamera_agent.cli.demo.table import answer_table, turn_table
from kamera_agent.cli.demo.trace import RESTART_AFTER, TRACE
from kamera_agent.cli.demo.worker import Part
from kamera_agent.store.lmdb_store import LmdbStore

INTRO = f"""\
An agent watches a yard and the screens of a shop: 12 frames in 6 groups, 6 screens, a window of 4 chunks.
After turn {RESTART_AFTER} of {len(TRACE)} the process ends. Another process continues with the store on disk
(the operating system may still have the store's file in memory).

The model is the pocket model of this package: small, and trained on such screens and scenes.

Every turn is answered in three ways over the same window. The table shows the time to the first token:
  kamera  this library: computes new content, moves or recalls the rest
  prefix  a prefix cache that keeps vision-encoder outputs, in the memory of the process
  full    one plain Hugging Face forward pass over all pixels and tokens
KL is the divergence from the next-token distribution of full to that of kamera, in nats.
New chunks are stored between the turns. These times leave that out; the summary reports it.
"""

BLIND = """\
The answers. blind reuses every chunk as it was computed alone, rotated to its position and not patched:
it can read a screen, but not compare one with another."""


def run_demo(store: Path, out: Path) -> None:
    """Play the trace, print it, and write demo.json and demo.png.

    store: folder of the store. Only chunks of earlier demos are deleted from it.
    out: existing folder for the two files.
    """
    console = make_console()
    console.print(f"{INTRO}\nThe figures and a picture go to {out}.\n", soft_wrap=True)
    _forget_earlier_demos(store)
    conditions, results = _play(console, _parts(store))
    console.print(turn_table(results))
    console.print(BLIND)
    console.print(answer_table(results))
    report = as_report({"date": datetime.now(UTC).isoformat(timespec="seconds"), **conditions}, results)
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    from kamera_agent.cli.demo.picture import draw

    draw(results, out / "demo.png")
    console.print(summary(Totals.of(results)))
    console.print(f"\n{out / 'demo.png'}\n{out / 'demo.json'}", soft_wrap=True)


def summary(totals: Totals) -> str:
    """The totals as text."""
    computed, first = totals.num_computed, {way: ms / 1e3 for way, ms in totals.first_token_ms.items()}
    remember, heal = totals.remember_ms / 1e3, totals.heal_ms / 1e3
    right, asked = totals.num_right, totals.num_turns
    return (
        f"Right answers of {asked}: kamera {right['kamera']}, prefix {right['prefix']}, full {right['full']}, "
        f"blind {right['blind']}.\n"
        f"First tokens of all turns: kamera {first['kamera']:.2f} s, "
        f"prefix {first['prefix']:.2f} s ({first['prefix'] / first['kamera']:.1f}x), "
        f"full {first['full']:.2f} s ({first['full'] / first['kamera']:.1f}x).\n"
        f"Between the turns: {remember:.2f} s for storing new chunks, and {heal:.2f} s for healing stale spans; "
        f"{first['kamera'] + remember + heal:.2f} s for kamera with both.\n"
        f"Tokens computed: kamera {computed['kamera']}, prefix {computed['prefix']}, full {computed['full']}.\n"
        f"KL: median {totals.median_kl:.1e}, largest {totals.largest_kl:.1e}."
    )


def _forget_earlier_demos(store: Path) -> None:
    with LmdbStore(store) as disk:
        headers = disk.headers()
        chunks = {header.chunk for header in headers if header.kind == "base" and _is_ours(header)}
        disk.delete([header.key for header in headers if header.chunk in chunks])


def _is_ours(base: Header) -> bool:
    return bool(json.loads(base.key.material).get("namespace") == NAMESPACE)


def _play(console: Console, parts: Iterable[Part]) -> tuple[dict[str, Any], list[TurnResult]]:
    """The conditions, and the turns of all parts in order."""
    conditions: dict[str, Any] = {}
    results: list[TurnResult] = []
    with Live(_progress(results), console=console, refresh_per_second=8, transient=True) as live:
        for part in parts:
            lines = run_part(part)
            conditions = next(lines)
            for facts in lines:
                results.append(TurnResult.from_json(facts))
                live.update(_progress(results))
    return conditions, results


def _parts(store: Path) -> list[Part]:
    ranges = pairwise((0, RESTART_AFTER, len(TRACE)))
    return [Part(process, first, stop, str(store)) for process, (first, stop) in enumerate(ranges, start=1)]


def _progress(results: list[TurnResult]) -> Group:
    activity = "loading the model" if len(results) in (0, RESTART_AFTER) else "measuring"
    return Group(turn_table(results), Spinner("line", f"turn {len(results) + 1} of {len(TRACE)}: {activity}"))
