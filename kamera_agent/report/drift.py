"""The drift of compared answers, beside what their spans said of it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from statistics import StatisticsError, correlation, median
from typing import NamedTuple

from kamera_agent.report.account import Turn
from kamera_agent.telemetry.record import AnswerRecord

HEADS = ("answer", "conversation", "KL", "same token", "patch error", "unseen", "reordered", "lost", "computed again")
MAX_ROWS = 50


class Estimate(NamedTuple):
    """What the spans of an answer say of its drift before it is measured.

    error: the largest relative error that a patch has left. unseen, reordered, lost: the shares of the prompt's tokens
    that are stale in this way. refreshed: the share of the prompt's KV that was computed again for that.
    """

    error: float
    unseen: float
    reordered: float
    lost: float
    refreshed: float


def estimate(record: AnswerRecord) -> Estimate:
    """The estimate of an answer."""
    num_tokens = sum(row.num_tokens for row in record.rows)
    stale = [(row.num_tokens / num_tokens, row.stale) for row in record.rows if row.stale]
    return Estimate(
        error=max((row.error or 0.0 for row in record.rows), default=0.0),
        unseen=sum(share for share, kind in stale if kind.unseen),
        reordered=sum(share for share, kind in stale if kind.reordered),
        lost=sum(share for share, kind in stale if kind.lost),
        refreshed=sum(row.refreshed * row.num_tokens / num_tokens for row in record.rows),
    )


def drift_table(turns: Sequence[Turn]) -> str:
    """The compared answers as HTML, the largest KL first, and how their estimates rank them; empty without any."""
    compared = [(turn, turn.record.drift, estimate(turn.record)) for turn in turns if turn.record.drift]
    if not compared:
        return ""
    compared.sort(key=lambda entry: -entry[1].kl)
    kls = [drift.kl for _, drift, _ in compared]
    num_agreeing = sum(drift.agrees for _, drift, _ in compared)
    rows = [
        (str(turn.number), turn.conversation, f"{drift.kl:.2g}", "yes" if drift.agrees else "no", *_cells(known))
        for turn, drift, known in compared[:MAX_ROWS]
    ]
    ranks = [_rank_correlation(values, kls) for values in zip(*(known for _, _, known in compared), strict=True)]
    lines = [_line("th", HEADS), *(_line("td", row) for row in rows)]
    lines.append(_line("td", ("", "rank correlation with the KL", "", "", *ranks)))
    return (
        "<h3>Drift from a full prefill, and what the spans said of it</h3>"
        f"<p>{num_agreeing} of {len(compared)} compared answers have the same likeliest first token. The median KL is "
        f"{median(kls):.2g} nats, the largest {kls[0]:.2g}.</p>"
        f'<div class="plan" id="drift"><table>{"".join(lines)}</table></div>'
    )


def _cells(known: Estimate) -> tuple[str, ...]:
    return (f"{known.error:.3f}", *(f"{share:.0%}" if share else "" for share in known[1:]))


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _rank_correlation(values: Sequence[float], others: Sequence[float]) -> str:
    """Spearman's; empty where there are too few values, or all are equal."""
    try:
        return f"{correlation(_ranks(values), _ranks(others)):.2f}"
    except StatisticsError:
        return ""


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value; equal values share the mean of theirs."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]
