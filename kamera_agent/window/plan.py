"""A plan as plain data: the spans that an answer keeps, moves, recalls and computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

Kind = Literal["anchor", "turn", "text", "reply", "image", "frames", "document"]
Grade = Literal["ordered", "orbit", "survivor"]
Origin = Literal["computed", "kept", "moved", "recalled", "blind"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One span of a plan, as plain data.

    moved_from: its position before; None where it was not in the pool.
    match, error, text_match, approximate: facts about the patch of a recalled span, as in Match; None for other spans.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """The origin of every span of an answer, in order. Prints as a table."""

    rows: tuple[PlanRow, ...]

    def num_tokens(self, *origins: Origin) -> int:
        """Tokens of the spans with these origins; of all spans when none is named."""
        wanted = origins or get_args(Origin)
        return sum(row.num_tokens for row in self.rows if row.origin in wanted)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON-serialisable data."""
        return {"rows": [asdict(row) for row in self.rows]}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table("span", "kind", "tokens", "position", "from", "origin", "exact", "patch")
        for row in self.rows:
            patch = f"{row.match}, error {row.error:.3f}, text {row.text_match:.0%}" if row.match else ""
            moved_from = "" if row.moved_from is None else str(row.moved_from)
            cells = (
                row.num_tokens,
                row.position,
                moved_from,
                row.origin,
                "yes" if row.exact else "no",
                patch,
            )
            table.add_row(row.id, row.kind, *map(str, cells))
        yield table

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self)
        return capture.get()
