"""The demo: plays a day, prints it and writes its files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from kamera_agent.chunk import Header
from kamera_agent.cli.console import make_console
from kamera_agent.cli.demo.meter import NAMESPACE
from kamera_agent.cli.demo.process import run_part
from kamera_agent.cli.demo.result import Totals, TurnResult, as_report
from kamera_agent.cli.demo.scale import Scale
from kamera_agent.cli.demo.table import turn_table
from kamera_agent.cli.demo.worker import Part
from kamera_agent.store.lmdb_store import LmdbStore

INTRO = """\
{scene}

The table shows the milliseconds from each change of the window to the first token of an answer:
  kamera  this library: computes new pictures, moves or recalls the rest
  prefix  a prefix cache in the memory of the process, which keeps vision-encoder outputs
  full    one plain Hugging Face forward pass over all pixels and tokens
The column "new" has the tokens that kamera computes, KL the divergence of its next-token distribution from that of
full, in nats.{right}
"""
RIGHT = """
The column "right" has the initials of those whose answer is right, the last one for blind reuse: every picture as it
was computed alone, rotated to its position and not patched."""
DAY = """\
An agent watches a yard and the pages of a shop, with the last {in_sight} pictures in sight. Of {turns} turns, {see}
bring a new picture, {revisit} a page seen before, {look_back} an older picture in place of the oldest, and {reorder}
reorder the window. After turn {restart} the process ends; another one goes on with the store on disk (the operating
system may still have its file in memory). The model is the pocket model of this package: small, and trained on such
pictures."""
LARGE = """\
Six turns with {in_sight} screenshots of 1,196 tokens in sight, over 65 million random weights. Their answers are noise:
only the times count. The full prefill is measured once."""


def run_demo(scale: Scale, store: Path, out: Path) -> None:
    """Play the day of a scale, print it, and write demo.json and demo.png.

    store: folder of the store. Only chunks of earlier demos are deleted from it.
    out: existing folder for the two files.
    """
    console = make_console()
    console.print(INTRO.format(scene=_scene(scale), right=RIGHT if scale.is_trained else ""), soft_wrap=True)
    _forget_earlier_demos(store)
    conditions, results = _play(console, scale, store)
    console.print(turn_table(results))
    report = as_report({"date": datetime.now(UTC).isoformat(timespec="seconds"), **conditions}, results)
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    from kamera_agent.cli.demo.picture import draw

    draw(results, out / "demo.png")
    console.print(summary(Totals.of(results)), soft_wrap=True)
    console.print(f"\n{out / 'demo.png'}\n{out / 'demo.json'}", soft_wrap=True)


def summary(totals: Totals) -> str:
    """The totals as one sentence."""
    ms, computed = totals.first_token_ms, totals.num_computed
    right = ", ".join(f"{way} {count}" for way, count in totals.right.items() if count is not None)
    return (
        (f"Right answers of {totals.num_turns}: {right}; m" if right else "M")
        + f"edian time to the first token: kamera {ms['kamera']:,.0f} ms, "
        f"prefix cache {ms['prefix']:,.0f} ms ({totals.prefix_over_kamera:.1f}x), "
        f"full prefill {ms['full']:,.0f} ms ({totals.full_over_kamera:.1f}x); "
        f"tokens computed: kamera {computed['kamera']:,}, prefix {computed['prefix']:,}, full {computed['full']:,}; "
        f"between the turns kamera took {totals.remember_ms / 1e3:.1f} s in all to store new chunks, and "
        f"{totals.heal_ms / 1e3:.1f} s to heal the window and compute the next one ahead"
        + ("." if totals.largest_kl is None else f"; largest KL {totals.largest_kl:.0e}.")
    )


def _scene(scale: Scale) -> str:
    if not scale.is_trained:
        return LARGE.format(in_sight=scale.in_sight)
    actions = [turn.action for turn in scale.measured]
    counts = {action.replace(" ", "_"): actions.count(action) for action in set(actions)}
    return DAY.format(in_sight=scale.in_sight, turns=len(actions), restart=scale.restart_after, **counts)


def _forget_earlier_demos(store: Path) -> None:
    with LmdbStore(store) as disk:
        headers = disk.headers()
        chunks = {header.chunk for header in headers if header.kind == "base" and _is_ours(header)}
        disk.delete([header.key for header in headers if header.chunk in chunks])


def _is_ours(base: Header) -> bool:
    return bool(json.loads(base.key.material).get("namespace") == NAMESPACE)


def _play(console: Console, scale: Scale, store: Path) -> tuple[dict[str, Any], list[TurnResult]]:
    """The conditions, and the turns of all parts in order."""
    conditions: dict[str, Any] = {}
    results: list[TurnResult] = []
    num_turns = len(scale.measured)
    with Live(Spinner("line", "loading the model"), console=console, refresh_per_second=8, transient=True) as live:
        for process, (first, stop) in enumerate(scale.parts, start=1):
            lines = run_part(Part(scale, process, first, stop, str(store)))
            conditions = next(lines)
            for facts in lines:
                results.append(TurnResult.from_json(facts))
                live.update(Spinner("line", f"turn {len(results)} of {num_turns}: {results[-1].event}"))
    return conditions, results
