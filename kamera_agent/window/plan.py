"""A plan as plain data: the spans that an answer keeps, moves, recalls and computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from kamera_agent.window.evidence import Grade, Stale
from kamera_agent.window.notebook import PLAN_COLUMNS, plan_html

Kind = Literal["anchor", "turn", "text", "reply", "image", "frames", "document"]
CHANGES = ("unseen", "lost", "reordered")
Origin = Literal["computed", "kept", "moved", "recalled", "tiled", "blind"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One span of a plan, as plain data.

    moved_from: its position before; None where it was not in the pool.
    match, error, text_match, approximate: of the KV that a chunk takes over; see Evidence and grade(). None elsewhere.
    stale: how the runs before a chunk differ from those that its KV was computed after; None where they do not.
    refresh: whether some of its tokens are computed again. refreshed: the share of its KV, in tokens times layers, that
        was; 0.0 in a plan that was not carried out. near: id of the span that a tiled one resembles, or of the text
        whose beginning a kept one has; then refreshed is the share of its tokens that are computed, in any plan.
    """

    id: str
    kind: Kind
    num_tokens: int
    position: int
    moved_from: int | None
    origin: Origin
    exact: bool
    match: Grade | None = None
    error: float | None = None
    text_match: float | None = None
    approximate: bool | None = None
    stale: Stale | None = None
    refresh: bool = False
    refreshed: float = 0.0
    near: str | None = None

    @property
    def num_computed(self) -> float:
        """Tokens of it that are computed. Those of a refreshed span count by their share of the layers."""
        return self.num_tokens if self.origin == "computed" else self.num_tokens * self.refreshed

    @property
    def num_begun(self) -> int:
        """Tokens at the beginning of a text that stayed, where the rest was written anew; else 0."""
        return self.num_tokens - round(self.num_computed) if self.origin == "kept" and self.near else 0

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as texts, under the heads of PLAN_COLUMNS."""
        moved_from = "" if self.moved_from is None else str(self.moved_from)
        exact = "yes" if self.exact else "no"
        return (
            self.id,
            self.kind,
            str(self.num_tokens),
            str(self.position),
            moved_from,
            self.origin,
            exact,
            self._evidence,
        )

    @property
    def _evidence(self) -> str:
        """How the KV that a chunk takes over fits its place, and what is done about it."""
        if self.near is not None:
            return f"like {self.near}, {self.refreshed:.0%} computed"
        if self.match is None or self.match == "chain":
            return self.match or ""
        parts = [self.match, f"text {self.text_match:.0%}"]
        parts += [f"error {self.error:.3f}"] if self.error else []
        changes = {} if self.stale is None else {name: getattr(self.stale, name) for name in CHANGES}
        parts += [f"{len(chunks)} {name}" for name, chunks in changes.items() if chunks]
        return ", ".join([*parts, "refresh"] if self.refresh else parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """The origin of every span of an answer, in order. Prints as a table."""

    rows: tuple[PlanRow, ...]

    @property
    def is_exact(self) -> bool:
        """Whether a full prefill gives the same KV."""
        return all(row.exact for row in self.rows)

    @property
    def num_computed(self) -> int:
        """Tokens that are computed. Those of refreshed spans count by their share of the layers."""
        return round(sum(row.num_computed for row in self.rows))

    def num_tokens(self, *origins: Origin) -> int:
        """Tokens of the spans with these origins; of all spans when none is named."""
        wanted = origins or get_args(Origin)
        return sum(row.num_tokens for row in self.rows if row.origin in wanted)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON-serialisable data."""
        return {"rows": [asdict(row) for row in self.rows]}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(*PLAN_COLUMNS)
        for row in self.rows:
            table.add_row(*row.cells)
        yield table

    def _repr_html_(self) -> str:
        return plan_html(self)

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self)
        return capture.get()
