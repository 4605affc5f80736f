"""The report of a comparison: a table of the steps, and their sums."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from examples.ui_agent.comparison import Step


def print_report(steps: Sequence[Step], console: Console) -> None:
    """Print all steps, then sums, medians and shares."""
    console.print(_table(steps))
    plain, cached = sum(s.plain.computed for s in steps), sum(s.cached.computed for s in steps)
    console.print(f"Tokens computed: plain {plain}, cached {cached} ({plain / cached:.1f}x)")
    plain_ms, cached_ms = median(s.plain.first_token_ms for s in steps), median(s.cached.first_token_ms for s in steps)
    ratio = plain_ms / cached_ms
    console.print(f"Time to first token, median: plain {plain_ms:.0f} ms, cached {cached_ms:.0f} ms ({ratio:.1f}x)")
    known = [step for step in steps if step.move.answer]
    others = [step for step in steps if not step.move.answer]
    if known:
        right = [sum(getattr(s, arm).answer == s.move.answer for s in known) for arm in ("plain", "cached")]
        console.print(f"Questions with a known answer: {len(known)}; right: plain {right[0]}, cached {right[1]}")
    for name, some in (("with a known answer", known), ("that the model cannot read", others)):
        if some:
            same = sum(step.same for step in some)
            console.print(
                f"Steps {name}: same answer in {same} of {len(some)}, KL median {median(s.kl for s in some):.0e}"
            )


def _table(steps: Sequence[Step]) -> Table:
    table = Table("step", "move", "screens", box=None, pad_edge=False)
    for name in ("window", "computed", "plain ms", "cached ms", "KL"):
        table.add_column(name, justify="right")
    table.add_column("question")
    table.add_column("plain")
    table.add_column("cached")
    for step in steps:
        table.add_row(
            str(step.number),
            _move(step),
            str(step.num_screens),
            str(step.cached.in_all),
            str(step.cached.computed),
            f"{step.plain.first_token_ms:.0f}",
            f"{step.cached.first_token_ms:.0f}",
            f"{step.kl:.0e}",
            step.move.question,
            _mark(step.plain.answer, step),
            _mark(step.cached.answer, step),
        )
    return table


def _move(step: Step) -> str:
    values = (str(value) for value in step.move.arguments.values())
    return f"{step.move.tool} {' '.join(values)}"


def _mark(answer: str, step: Step) -> str:
    """The answer, followed by the right one if it is wrong."""
    return answer if step.move.answer in (None, answer) else f"{answer} (no: {step.move.answer})"
