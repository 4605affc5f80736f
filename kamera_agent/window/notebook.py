"""How windows, spans, plans and replies look in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from kamera_agent.vision.thumbnail import thumbnail

if TYPE_CHECKING:
    from kamera_agent.vision.image import Pixels
    from kamera_agent.window.plan import Origin, Plan, PlanRow
    from kamera_agent.window.reply import Reply
    from kamera_agent.window.span import Span

# Readable on white and on black, because a notebook may have either ground. Every colour has its word beside it.
COLOURS: Final[dict[Origin, str]] = {
    "computed": "#d9822b",
    "kept": "#7f96ab",
    "moved": "#3f8fc9",
    "recalled": "#36a873",
    "tiled": "#8f78c8",
    "blind": "#c2556b",
}
UNCOMPUTED = "not computed"

# The selectors outweigh those that Jupyter has for tables.
STYLE = """
.kamera-view { font-size: 13px; line-height: 1.45; overflow-x: auto; color: inherit; }
.kamera-view p { margin: 4px 0; }
.kamera-view small { opacity: .7; }
.kamera-view table.kamera-table { border-collapse: collapse; margin: 6px 0; font-variant-numeric: tabular-nums; }
.kamera-view table.kamera-table :is(th, td) { padding: 3px 10px; border: 0; text-align: left; vertical-align: middle;
  border-bottom: 1px solid var(--jp-border-color2, #8884); font-size: 12px; white-space: nowrap; }
.kamera-view table.kamera-table .kamera-number { text-align: right; }
.kamera-view table.kamera-table .kamera-content { white-space: normal; overflow-wrap: anywhere; max-width: 36em; }
.kamera-view img { display: inline-block; margin: 2px 6px 2px 0; border-radius: 3px; max-width: 100%;
  outline: 1px solid var(--jp-border-color2, #8884); vertical-align: middle; }
.kamera-view .kamera-strip { display: flex; gap: 1px; height: 12px; margin: 6px 0; max-width: 720px; }
.kamera-view .kamera-strip span { flex: 1 1 0; min-width: 1px; border-radius: 2px; }
.kamera-view .kamera-mark { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
.kamera-view .kamera-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.kamera-view .kamera-step { border-left: 3px solid; padding: 1px 0 1px 10px; margin: 3px 0; }
.kamera-view .kamera-markup { font-family: var(--jp-code-font-family, monospace); font-size: 11px; opacity: .6; }
.kamera-view summary { cursor: pointer; }
"""

SPAN_COLUMNS = ("span", "content", "tokens", "position", "origin")
PLAN_COLUMNS = ("span", "kind", "tokens", "position", "from", "origin", "exact", "evidence")
# Classes of cells, by column.
CELLS = {"content": "kamera-content", **dict.fromkeys(("tokens", "position", "from"), "kamera-number")}

ROW_SIDE, SHOWN_SIDE = 96, 320
# Frames of a clip and characters of a text that are shown; the rest is counted.
MAX_FRAMES, ROW_CHARS, SHOWN_CHARS = 8, 160, 8000


class Markup(str):
    """A text that is HTML. Every other text is escaped where it becomes part of one."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element of HTML. Children that are Markup are taken as they are, and all others as text."""
    written = "".join(f' {name.rstrip("_")}="{escape(str(value))}"' for name, value in attributes.items())
    inner = "".join(child if isinstance(child, Markup) else escape(str(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}" + ("" if tag == "img" else f"</{tag}>"))


class View:
    """HTML for a notebook, and the same as text for everything else."""

    def __init__(self, markup: Markup, text: str) -> None:
        self._markup = markup
        self._text = text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


def display(view: View) -> None:
    """Show a view in the notebook or the IPython shell that this runs in, else as text on stdout."""
    ipython: Any = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        ipython.display.display(view)
    else:
        sys.stdout.write(f"{view}\n")


def window_html(spans: Sequence[Span]) -> Markup:
    """Every span of a window, with its picture or the beginning of its text, and where its KV came from."""
    head = element("p", element("b", "Window"), f" of {len(spans)} spans, {_tokens(span.num_tokens for span in spans)}")
    return _view(head, *_strip(spans), _span_table(spans))


def span_html(span: Span) -> Markup:
    """One span."""
    return _view(_span_table([span]))


def plan_html(plan: Plan) -> Markup:
    """The rows of a plan."""
    head = element("p", element("b", "Plan"), f" for {_tokens(row.num_tokens for row in plan.rows)}")
    return _view(head, *_plan(plan))


def reply_html(reply: Reply) -> Markup:
    """The text of a reply, its cost, and its plan behind a fold."""
    usage, timings = reply.usage, reply.timings
    text = element("p", _cut(reply.text, SHOWN_CHARS), class_="kamera-text")
    facts = [
        f"{reply.plan.num_computed:,} tokens computed of {reply.plan.num_tokens():,}",
        f"{usage.tokens_generated:,} generated ({reply.finish_reason})",
        f"first token after {timings.first_token_ms:,.0f} ms",
        f"the rest in {timings.decode_ms:,.0f} ms",
    ]
    if num_pictures := usage.encoder_calls + usage.encoder_avoided:
        facts.append(f"{usage.encoder_calls} of {num_pictures} images and clips encoded")
    cost = element("p", element("small", "; ".join(facts)))
    return _view(text, cost, element("details", element("summary", "Plan"), *_plan(reply.plan)))


def transcript(spans: Sequence[Span], texts: Sequence[str]) -> View:
    """The spans in order as the model sees them. texts: of each span, the markup of the chat format included."""
    steps, written = [], []
    for span, text in zip(spans, texts, strict=True):
        if span.kind in ("anchor", "turn"):
            steps.append(element("div", text.replace("\n", "↵"), class_="kamera-markup"))
            written.append(text)
            continue
        where = element("small", f"{span.id}, {span.role}, {_tokens([span.num_tokens])}, {span.origin or UNCOMPUTED}")
        body = [element("div", _cut(text, SHOWN_CHARS), class_="kamera-text")]
        if span.pixels is not None:
            body = [element("div", *_pictures(span.pixels, SHOWN_SIDE))]
            text = f"[{span.id}: {_size(span.pixels)}, {_tokens([span.num_tokens])}]"
        steps.append(element("div", where, *body, class_="kamera-step", style=f"border-color: {_colour(span.origin)}"))
        written.append(text)
    return View(_view(*steps), "".join(written))


def _view(*children: Markup) -> Markup:
    return element("div", Markup(f"<style>{STYLE}</style>"), *children, class_="kamera-view")


def _strip(rows: Sequence[Span | PlanRow]) -> list[Markup]:
    """Spans side by side, as wide as they have tokens, and the tokens of each origin."""
    parts = [
        element(
            "span",
            style=f"flex-grow: {row.num_tokens}; background: {_colour(row.origin)}",
            title=f"{row.id}: {_tokens([row.num_tokens])}, {row.origin or UNCOMPUTED}",
        )
        for row in rows
        if row.num_tokens
    ]
    totals = {origin: sum(row.num_tokens for row in rows if row.origin == origin) for origin in (*COLOURS, None)}
    legend = [element("span", _origin(origin), f" {total:,}\u2003") for origin, total in totals.items() if total]
    return [element("div", *parts, class_="kamera-strip"), element("p", *legend, class_="kamera-legend")]


def _plan(plan: Plan) -> list[Markup]:
    rows = [
        [
            _origin(row.origin) if column == "origin" else cell
            for column, cell in zip(PLAN_COLUMNS, row.cells, strict=True)
        ]
        for row in plan.rows
    ]
    return [*_strip(plan.rows), _table(PLAN_COLUMNS, rows)]


def _span_table(spans: Iterable[Span]) -> Markup:
    rows = []
    for span in spans:
        content = [_cut(span.text, ROW_CHARS)]
        if span.pixels is not None:
            content = [*_pictures(span.pixels, ROW_SIDE), element("small", _size(span.pixels))]
        origin = [_origin(span.origin), *([element("small", ", not exact")] if span.exact is False else [])]
        name = [span.id, " ", element("small", span.role)]
        rows.append([_join(name), _join(content), f"{span.num_tokens:,}", f"{span.position:,}", _join(origin)])
    return _table(SPAN_COLUMNS, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    def line(tag: str, cells: Sequence[str]) -> Markup:
        named = zip(columns, cells, strict=True)
        return element("tr", *(element(tag, cell, class_=CELLS.get(column, "kamera-cell")) for column, cell in named))

    head, body = element("thead", line("th", columns)), element("tbody", *(line("td", cells) for cells in rows))
    return element("table", head, body, class_="kamera-table")


def _join(parts: Iterable[str]) -> Markup:
    return element("span", *parts)


def _origin(origin: Origin | None) -> Markup:
    mark = element("span", class_="kamera-mark", style=f"background: {_colour(origin)}")
    return element("span", mark, origin or UNCOMPUTED)


def _colour(origin: Origin | None) -> str:
    return COLOURS[origin] if origin else "#9994"


def _pictures(pixels: Pixels, side: int) -> list[Markup]:
    """A picture of an image, or pictures of some frames of a clip, from the first to the last."""
    frames = pixels if pixels.ndim == 4 else pixels[None]
    last, most = len(frames) - 1, min(len(frames), MAX_FRAMES)
    chosen = [round(number * last / max(most - 1, 1)) for number in range(most)]
    side = side if most == 1 else side // 2
    return [element("img", src=f"data:image/jpeg;base64,{thumbnail(frames[index], side)}") for index in chosen]


def _size(pixels: Pixels) -> str:
    height, width = pixels.shape[-3:-1]
    return f"{width}×{height}" if pixels.ndim == 3 else f"{len(pixels)} frames of {width}×{height}"


def _tokens(counts: Iterable[int]) -> str:
    total = sum(counts)
    return f"{total:,} token{'' if total == 1 else 's'}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"
