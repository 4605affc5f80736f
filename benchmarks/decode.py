"""Speed of decoding against generate() of Hugging Face, on the same model and window.

    python -m benchmarks.decode --json [--large]

Windows of 1, 4 and 8 screenshots (1280x720, 1,196 tokens each) and a question, on a Qwen2.5-VL of about 60 million
parameters with random weights; large: of the shape of Qwen2.5-VL-7B, in bfloat16 on a CUDA device. The figures are
medians over the rounds; both ways are measured in every round, in an order that changes from round to round. Each
starts from a filled window and is timed from its first token to its last.

free      text drawn at temperature 1: nothing repeats, so no guess at the next tokens is right
repeats   the greedy text, which random weights soon repeat, so many guesses are right
forced    the call of a tool under a grammar that leaves two choices; Hugging Face has the same grammar, token by token.
          It needs llguidance, and is left out without it

ratio is our speed over that of Hugging Face: in tokens per second, and in characters per second for a call, since
forced text may be cut into tokens in several ways.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import LogitsProcessor

from benchmarks.baselines import Prompt, head_of
from benchmarks.command import parser_of, show
from benchmarks.large import build_large, large_conditions
from benchmarks.session import QUESTION, Session, picture
from benchmarks.window import conditions
from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.runtime.slot_cache import cache_argument

if TYPE_CHECKING:
    from kamera_agent.turns.grammar import Grammars, Matcher

SEED = 0
SIZE = 720, 1280
TASKS = (("free", 1), ("free", 4), ("free", 8), ("repeats", 4), ("forced", 4))
TOOL = {
    "type": "function",
    "function": {
        "name": "click",
        "parameters": {
            "type": "object",
            "properties": {"target": {"enum": ["search", "cancel"]}, "button": {"enum": ["left", "right"]}},
            "required": ["target", "button"],
            "additionalProperties": False,
        },
    },
}


SAMPLING: dict[str, dict[str, Any]] = {"free": {"temperature": 1.0}, "repeats": {}, "forced": {}}
# More than a call has.
LONGEST_CALL = 160
WAYS = ("ours", "hugging_face")


class Drawn(NamedTuple):
    """A reply. text: all of it.

    seconds: from its first token on. num_computed, num_passes: tokens computed in these seconds, and forward passes.
    """

    seconds: float
    num_computed: int
    num_passes: int
    text: str

    def speed(self, task: str) -> float:
        """Tokens per second; characters for a call."""
        return (len(self.text) if task == "forced" else self.num_computed) / self.seconds


class Bench:
    """One window of screenshots and a question, for both ways."""

    def __init__(self, kamera: Kamera, size: tuple[int, int], num_images: int) -> None:
        self._kamera, self._family = kamera, kamera.family
        self._session = Session(kamera, num_images)
        pictures = [picture(*size, seed) for seed in range(num_images)]
        for pixels in pictures:
            self._session.see(pixels)
        self._session.answer()
        self._prompt = Prompt(self._family.model, self._family.processors, pictures, QUESTION)
        self._cache = self._prompt.full_prefill()
        # Hugging Face keeps the shift of the positions after images in the model, and each prompt overwrites it.
        self._deltas = self._family.model.model.rope_deltas

    def round(self, task: str, number: int, num_tokens: int) -> dict[str, Drawn]:
        """A reply of both ways. number: of the round; it sets their order, and what is drawn."""
        ways: dict[str, Callable[[str, int, int], Drawn]] = {"ours": self._ours, "hugging_face": self._hugging_face}
        most = LONGEST_CALL if task == "forced" else num_tokens
        return {way: ways[way](task, number, most) for way in (WAYS if number % 2 else WAYS[::-1])}

    @cached_property
    def _grammars(self) -> Grammars:
        # Imported here, because llguidance is not installed everywhere.
        from kamera_agent.turns.grammar import Grammars

        return Grammars(self._family.processors.tokenizer)

    def _constraint(self, task: str) -> Matcher | None:
        return self._grammars.calls([TOOL]) if task == "forced" else None

    def _ours(self, task: str, seed: int, num_tokens: int) -> Drawn:
        engine, num_passes = self._kamera._engine, 0
        extend = engine.extend

        def counting(*args: Any) -> torch.Tensor:
            nonlocal num_passes
            num_passes += 1
            return extend(*args)

        engine.extend = counting  # type: ignore[method-assign]
        window, options = self._session.window, SAMPLING[task] | {"seed": seed, "max_tokens": num_tokens}
        with window.stream(QUESTION, constraint=self._constraint(task), **options) as stream:
            reply = stream.finish()
        engine.extend = extend  # type: ignore[method-assign]
        for span in window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                window.drop(span.id)
        return Drawn(reply.timings.decode_ms / 1e3, reply.usage.tokens_generated, num_passes, reply.text)

    def _hugging_face(self, task: str, seed: int, num_tokens: int) -> Drawn:
        prompt, model = self._prompt, self._family.model
        clock = Clock(self._constraint(task))
        torch.manual_seed(seed)
        model.model.rope_deltas = self._deltas
        sampling = {"do_sample": True, **SAMPLING[task]} if SAMPLING[task] else {"do_sample": False}
        output = model.generate(
            input_ids=prompt.token_ids[None],
            attention_mask=torch.ones_like(prompt.token_ids)[None],
            mm_token_type_ids=prompt.types[None],
            max_new_tokens=num_tokens,
            suppress_tokens=sorted(self._family.placeholder_ids),
            logits_processor=[clock],
            **sampling,
            # All but the last token: that one gives the first logits.
            **{cache_argument(model): head_of(self._cache, len(prompt) - 1)},
        )
        said = output[0, len(prompt) :].tolist()
        if said[-1] in self._family.chat.stop_ids:
            said.pop()
        num_passes = len(clock.times) - 1
        return Drawn(clock.times[-1] - clock.times[0], num_passes, num_passes, self._family.tokens.decode(said))


class Clock(LogitsProcessor):
    """Notes when logits come. Limits tokens to a grammar, if there is one."""

    def __init__(self, constraint: Matcher | None) -> None:
        self._constraint = constraint
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        # A GPU works asynchronously, and drawing waits for it: so the times are those of finished tokens before.
        if self._constraint and self.times:
            self._constraint.accept(int(input_ids[0, -1]))
        self.times.append(perf_counter())
        return self._constraint.mask(scores[0])[None] if self._constraint else scores


def measure(
    model: Any, processor: Any, size: tuple[int, int], num_tokens: int, num_rounds: int
) -> dict[str, dict[str, list[dict[str, Drawn]]]]:
    """Replies by task and number of screenshots, one per way and round. The first round is a warm-up, not returned."""
    drawn: dict[str, dict[str, list[dict[str, Drawn]]]] = {}
    with Kamera(model, processor, stale="keep", heal="never") as kamera:
        benches = {num: Bench(kamera, size, num) for num in sorted({num for _, num in TASKS})}
        for task, num in TASKS if find_spec("llguidance") else TASKS[:-1]:
            rounds = [_shown(task, num, benches[num].round(task, n, num_tokens)) for n in range(num_rounds + 1)]
            drawn.setdefault(task, {})[str(num)] = rounds[1:]
    return drawn


def _shown(task: str, num_images: int, drawn: dict[str, Drawn]) -> dict[str, Drawn]:
    """A round, printed, so that it is not lost if the run is stopped."""
    print(task, num_images, *(f"{way} {drawn[way].speed(task):.1f}/s" for way in WAYS), flush=True)
    return drawn


def summary(task: str, rounds: Sequence[dict[str, Drawn]]) -> dict[str, float]:
    """Medians of a task over the rounds."""
    speeds = {way: [drawn[way].speed(task) for drawn in rounds] for way in WAYS}
    ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
    passes = [drawn["ours"].num_computed / max(1, drawn["ours"].num_passes) for drawn in rounds]
    return {
        "ratio": round(statistics.median(ratios), 3),
        **{f"{way}_per_s": round(statistics.median(speeds[way]), 2) for way in WAYS},
        "tokens_per_pass": round(statistics.median(passes), 2),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after a warm-up (default 5)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a reply (default 48)")
    parser.add_argument("--large", action="store_true", help="measure the large model; needs a CUDA device")
    options = parser.parse_args()
    if options.large:
        model, processor = build_large("benchmarks.decode --large", "benchmarks.decode")
    else:
        model, processor = build_model(seed=SEED), build_processor()
    drawn = measure(model, processor, SIZE, options.tokens, options.rounds)
    result = {task: {num: summary(task, rounds) for num, rounds in sizes.items()} for task, sizes in drawn.items()}
    about = large_conditions(options.rounds) if options.large else conditions(options.rounds)
    show({**result, "conditions": {**about, "tokens": options.tokens}}, options.json)


if __name__ == "__main__":
    main()
