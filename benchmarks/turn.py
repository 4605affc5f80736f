"""A turn from end to end, step by step of a long agent: planning, rebuilding, and the first token over bare new tokens.

    python -m benchmarks.turn --json [--steps 200] [--large-steps 200]

An agent keeps a conversation that grows by two texts and a screenshot with each step. It shows the last three
screenshots; an older one becomes a text that says so, in its place. Every step gives Window.sync the whole list and
draws one token. The model is a Qwen2.5-VL of about 60 million parameters with seeded random weights.

large    screenshots of 1280x720 (1,196 tokens). small: of 168x112 (26 tokens), where everything but the forward pass
         weighs most
keep     stale="keep", heal="never": moved spans stay as they are, so that a step computes its new tokens only
default  the default settings, and Window.expect for the screenshot that leaves next; what heals and remembers between
         two steps is background_ms. The first 40 steps only, because that takes twice as long as the steps themselves
bare     forward pass of as many tokens as `keep` computes, over a DynamicCache of all others, with the encoder of a new
         screenshot but without its preprocessing; in every fourth step, mean of one run before `keep` and one after it

first_ms: from sync() to the first token, with preprocessing and fingerprint. Its parts are edit (sync), plan, rebuild,
prefill and wait, which is the draw on a CPU.
p50, p95: over all steps from the fifth on. overhead: first_ms of `keep` over bare_ms, in one step. growth: median of
the last 20 steps over that of the 20 around step 20; growth.first_token is that of the overhead, so that the attention
over a longer window does not count. None where there are fewer than 50 steps.

The first level of the JSON has the figures of large and keep.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.baselines import Figures, Prompt, blank_cache, median_ratio, timed_ms
from benchmarks.command import parser_of, show
from benchmarks.session import PARTS, parts_of, picture
from benchmarks.window import SEED, conditions
from kamera_agent import ImageContent, Kamera, TextContent
from kamera_agent.config import SettingOptions
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.window.content import Content

NUM_KEPT = 3
SIZES = {"large": (720, 1280), "small": (112, 168)}
SETTINGS: dict[str, SettingOptions] = {"keep": {"stale": "keep", "heal": "never"}, "default": {}}
# Steps of the default settings, and how many steps there are to one with a bare pass.
NUM_DEFAULT, BARE_EVERY = 40, 4
# The step whose neighbours growth compares with the last ones, and how many there are of both.
EARLY, SPAN = 20, 20
# Steps that warm up: in the first ones no screenshot leaves, and the next one shows how many tokens a step adds.
NUM_WARM = NUM_KEPT + 1


class Agent:
    """A window that is given the whole conversation with every step.

    totals, computed: per step, the tokens of the window and those that were computed.
    """

    def __init__(self, kamera: Kamera, size: tuple[int, int]) -> None:
        self.kamera, self.window, self._size = kamera, kamera.window(), size
        self.totals: list[int] = []
        self.computed: list[int] = []

    def step(self) -> Figures:
        """Figures of the next step, and of what it leaves to do in the background."""
        number = len(self.totals)
        contents = self._contents(number)
        sync_ms, span_ids = timed_ms(lambda: self.window.sync(contents))
        reply = self.window.generate(max_tokens=1)
        leaving = 3 * (number - NUM_KEPT + 1) + 1
        if self.kamera.settings.heal == "ahead" and leaving > 0:
            self.window.expect([*span_ids[:leaving], _gone(), *span_ids[leaving + 1 :]])
        background_ms, _ = timed_ms(self._finish)
        self.totals.append(reply.plan.num_tokens())
        self.computed.append(reply.usage.tokens_computed)
        first_ms = sync_ms + reply.timings.first_token_ms
        return {"first": first_ms, "background": background_ms} | parts_of(first_ms, reply)

    def _contents(self, number: int) -> list[Content]:
        """The conversation up to a step: per step a text, a screenshot, and what the agent did."""
        said: list[Content] = []
        for step in range(number + 1):
            said.append(TextContent(f"Page {_spelt(step)}:", "user", new_turn=True))
            is_shown = step > number - NUM_KEPT
            said.append(ImageContent(picture(*self._size, step)) if is_shown else _gone())
            said.append(TextContent(f"I click on {_spelt(step)}.", "assistant", new_turn=True))
        return said[:-1]

    def _finish(self) -> None:
        self.kamera.flush()
        self.kamera.settle()


def _gone() -> Content:
    return TextContent("(a page that has gone)")


def _spelt(number: int) -> str:
    """A number of three digits that no tokenizer joins: every step has as many tokens."""
    return "-".join(f"{number:03}")


class Bare:
    """The bare forward pass of the new tokens of a step, after as many others as that step has."""

    def __init__(self, model: Any, processor: Any, size: tuple[int, int]) -> None:
        self._model, self._processor, self._image = model, processor, picture(*size, SEED)
        self._num_least = len(Prompt(model, processor, [self._image], ""))

    def ms(self, total: int, computed: int) -> float:
        """Milliseconds for the last `computed` of `total` tokens: texts and a screenshot."""
        prompt = Prompt(self._model, self._processor, [self._image], "", num_more=total - self._num_least)
        start, patches = total - computed, prompt.patches([self._image])
        assert start <= prompt.first_image, (start, prompt.first_image)
        cache = blank_cache(self._model, start)
        return timed_ms(lambda: prompt.forward_tail(cache, start, [prompt.features(0, patches)]))[0]


def run(model: Any, processor: Any, size: tuple[int, int], num_steps: int) -> dict[str, list[Figures]]:
    """Figures of every step after those that warm up, by settings."""
    kameras = {name: Kamera(model, processor, **options) for name, options in SETTINGS.items()}
    agents = {name: Agent(kamera, size) for name, kamera in kameras.items()}
    keep, bare = agents["keep"], Bare(model, processor, size)
    measured: dict[str, list[Figures]] = {name: [] for name in SETTINGS}
    for number in range(num_steps):
        names = [*SETTINGS] if number < NUM_DEFAULT else ["keep"]
        is_warm, has_bare = number >= NUM_WARM, number % BARE_EVERY == 0
        bare_ms: list[float] = []
        figures: dict[str, Figures] = {}
        for name in names if number // BARE_EVERY % 2 else names[::-1]:
            if name == "keep" and is_warm and has_bare:
                total, computed = 2 * keep.totals[-1] - keep.totals[-2], keep.computed[-1]
                bare_ms.append(bare.ms(total, computed))
            figures[name] = agents[name].step()
            if name == "keep" and is_warm and has_bare:
                assert (keep.totals[-1], keep.computed[-1]) == (total, computed), number
                bare_ms.append(bare.ms(total, computed))
        beside = {"bare": statistics.mean(bare_ms)} if bare_ms else {}
        for name in names if is_warm else ():
            measured[name].append(figures[name] | beside | {"total": agents[name].totals[-1]})
        _print(number, figures)
    for kamera in kameras.values():
        kamera.close()
    return measured


def _print(number: int, figures: dict[str, Figures]) -> None:
    if number % 20 == 19:
        for name, ms in figures.items():
            times = "  ".join(f"{part} {ms[part]:8.2f} ms" for part in ("first", "background", *PARTS))
            print(f"step {number + 1:3}  {name:8} {times}", flush=True)


def summary(steps: Sequence[Figures]) -> dict[str, Any]:
    """Medians, 95th percentiles and growth."""
    beside = [ms for ms in steps if "bare" in ms]
    return {
        **{f"{part}_ms_p50": round(statistics.median(ms[part] for ms in steps), 2) for part in ("first", *PARTS)},
        **{f"{part}_ms_p95": round(_p95([ms[part] for ms in steps]), 2) for part in ("plan", "rebuild")},
        "background_ms_p50": round(statistics.median(ms["background"] for ms in steps), 2),
        "bare_ms_p50": round(statistics.median(ms["bare"] for ms in beside), 2),
        "overhead_p50": median_ratio(beside, "first", "bare"),
        "growth": {
            "plan": _growth(steps, lambda ms: ms["plan"]),
            "rebuild": _growth(steps, lambda ms: ms["rebuild"]),
            "first_token": _growth(steps, lambda ms: ms["first"] / ms["bare"] if "bare" in ms else None),
        },
        "window_tokens": int(steps[-1]["total"]),
    }


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _growth(steps: Sequence[Figures], value: Callable[[Figures], float | None]) -> float | None:
    """How often the value of an early step goes into that of a late one. value: None where a step has none."""
    start = EARLY - NUM_WARM - SPAN // 2
    if len(steps) < start + 2 * SPAN:
        return None
    early, late = (
        statistics.median(found for ms in some if (found := value(ms)) is not None)
        for some in (steps[start : start + SPAN], steps[-SPAN:])
    )
    return round(late / early, 2)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps with small screenshots (default 200)")
    parser.add_argument("--large-steps", type=int, default=200, help="steps with large ones (default 200)")
    options = parser.parse_args()
    num_steps = {"large": options.large_steps, "small": options.steps}
    if min(num_steps.values()) < NUM_WARM + 2:
        parser.error(f"the first {NUM_WARM} steps warm up; use {NUM_WARM + 2} or more")
    model, processor = build_model(seed=SEED), build_processor()
    large, small = (
        {name: summary(steps) for name, steps in run(model, processor, SIZES[size], num_steps[size]).items()}
        for size in SIZES
    )
    result = {
        **large["keep"],
        "default": large["default"],
        "small": small,
        "conditions": {**conditions(options.steps), "steps": num_steps, "settings": SETTINGS},
    }
    show(result, options.json)


if __name__ == "__main__":
    main()
