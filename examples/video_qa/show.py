"""Figures and tables of the frames, the answers and the costs."""

from collections.abc import Sequence
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from meter import Turn

from kamera_agent import Frames

COLOURS = {"computed": "#d9822b", "recalled": "#2e9d6a", "moved": "#2f7fb5", "kept": "#8aa0b4"}
FULL, BACKGROUND, INK = "#c4cbd3", "#f0d3b3", "#1f2328"
PER_ROW = 7
WIDTH_IN, DPI = 10.5, 130


def filmstrip(moments: Sequence[Frames]) -> None:
    """Show the last frame of each group, numbered from 1."""
    columns = min(len(moments), PER_ROW)
    rows = -(-len(moments) // columns)
    height, width = moments[0].pixels.shape[1:3]
    row_in = WIDTH_IN / columns * height / width + 0.25
    _, axes = plt.subplots(
        rows, columns, figsize=(WIDTH_IN, rows * row_in), layout="constrained", squeeze=False, dpi=DPI
    )
    for place in axes.flat:
        place.axis("off")
    for number, (place, moment) in enumerate(zip(axes.flat, moments, strict=False), start=1):
        place.imshow(moment.pixels[-1], interpolation="antialiased")
        place.set_title(f"{number}   {moment.timestamps[-1]:.1f} s", fontsize=9, color=INK, loc="left", pad=3)
    plt.show()


def answers(turns: Sequence[Turn], true: Sequence[str]) -> str:
    """A Markdown table of the turns. true: the right answer of each; another answer is set in bold."""
    rows = ["| step | question | drawn | Kamera | full prefill | computed | KL |", "|---|---|---|---|---|---|---|"]
    for turn, known in zip(turns, true, strict=True):
        computed = f"{turn.tokens['computed']} of {turn.tokens.total()}"
        answer = " ".join(turn.reply.text.split()).replace("|", "\\|")
        mark = answer if answer == known else f"**{answer}**"
        rows.append(
            f"| {turn.event} | {turn.question} | {known} | {mark} | {turn.full_answer} | {computed} | {turn.kl:.0e} |"
        )
    return "\n".join(rows)


def totals(turns: Sequence[Turn]) -> str:
    """A Markdown table of the costs of all turns, for Kamera and for a full prefill."""
    computed = sum(turn.tokens["computed"] for turn in turns)
    prompt = sum(turn.tokens.total() for turn in turns)
    first_s = sum(turn.kamera_ms for turn in turns) / 1e3
    whole_s = first_s + sum(turn.background_ms for turn in turns) / 1e3
    full_s = sum(turn.full_ms for turn in turns) / 1e3
    kl, sure = [turn.kl for turn in turns], [turn.full_probability for turn in turns]
    return f"""
| {len(turns)} steps | Kamera | full prefill | ratio |
|---|---|---|---|
| tokens computed | {computed:,} | {prompt:,} | {prompt / computed:.1f} |
| to the first tokens | {first_s:.2f} s | {full_s:.2f} s | {full_s / first_s:.1f} |
| with the work after the answers | {whole_s:.2f} s | {full_s:.2f} s | {full_s / whole_s:.1f} |

The next token is the same in {sum(turn.same_token for turn in turns)} of {len(turns)} steps. The full prefill gives
its own a probability of {median(sure):.2f} (median). KL, in nats: median {median(kl):.2g}, largest {max(kl):.2g}.
"""


def costs(turns: Sequence[Turn], seen: Sequence[str]) -> None:
    """Plot, per step, the moments in the window, the tokens by the origin of their KV, and the time to the first token.

    seen: ids of all groups of frames, in the order of the clip.
    """
    _, (moments, tokens, times) = plt.subplots(
        3, 1, figsize=(WIDTH_IN, 9.5), height_ratios=(1.5, 1, 1), sharex=True, layout="constrained", dpi=DPI
    )
    _moments(moments, turns, seen)
    _tokens(tokens, turns)
    _times(times, turns)
    times.set_xticks(range(len(turns)), [turn.event.replace(" ", "\n", 1) for turn in turns], fontsize=8.5)
    for axes in (moments, tokens, times):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, colors=INK)
        axes.set_axisbelow(True)
        axes.set_xlim(-0.5, len(turns) - 0.5)
    for axes in (tokens, times):
        axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
        axes.yaxis.set_major_formatter("{x:,.0f}")
    plt.show()


def _moments(axes: Axes, turns: Sequence[Turn], seen: Sequence[str]) -> None:
    for step, turn in enumerate(turns):
        for place, (moment, origin) in enumerate(turn.moments, start=1):
            row = seen.index(moment)
            axes.barh(row, 0.86, left=step - 0.43, height=0.86, color=COLOURS[origin])
            axes.text(step, row, str(place), ha="center", va="center", color="white", fontsize=8)
    axes.set_yticks(range(len(seen)), [str(number) for number in range(1, len(seen) + 1)], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_title(
        "Moments in the window, with their place in it; colour: where their KV came from",
        loc="left",
        color=INK,
        fontsize=11,
    )
    handles = [Patch(color=colour, label=origin) for origin, colour in COLOURS.items()]
    axes.legend(handles=handles, loc="lower left", frameon=False, fontsize=9)


def _tokens(axes: Axes, turns: Sequence[Turn]) -> None:
    below = [0] * len(turns)
    for origin, colour in COLOURS.items():
        counts = [turn.tokens[origin] for turn in turns]
        axes.bar(range(len(turns)), counts, 0.86, bottom=below, color=colour)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    _label(axes, [turn.tokens["computed"] for turn in turns], at=below)
    title = "Tokens of the prompt: a full prefill computes all, Kamera the orange ones (numbers)"
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_ylim(0, 1.12 * max(below))


def _times(axes: Axes, turns: Sequence[Turn]) -> None:
    steps = range(len(turns))
    kamera = [turn.kamera_ms for turn in turns]
    background = [turn.background_ms for turn in turns]
    axes.bar([step - 0.22 for step in steps], [turn.full_ms for turn in turns], 0.42, color=FULL, label="full prefill")
    places = [step + 0.22 for step in steps]
    axes.bar(places, kamera, 0.42, color=COLOURS["computed"], label="Kamera")
    axes.bar(places, background, 0.42, bottom=kamera, color=BACKGROUND, label="Kamera, after the answer")
    for place, value in zip(places, kamera, strict=True):
        axes.text(place, value, f"{value:,.0f}", ha="center", va="bottom", color=INK, fontsize=8.5)
    axes.set_title("Time to the first token, milliseconds", loc="left", color=INK, fontsize=11)
    axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=3)
    axes.margins(y=0.2)


def _label(axes: Axes, values: Sequence[float], at: Sequence[float]) -> None:
    for step, (value, height) in enumerate(zip(values, at, strict=True)):
        axes.text(step, height, f"{value:,.0f}", ha="center", va="bottom", color=INK, fontsize=8.5)
