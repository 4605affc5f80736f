"""Five clients over `kamera serve`: tokens computed against a prefix cache, answers, and time to the first token.

    python -m benchmarks.serve --json [--steps 40] [--clients drop stub] [--transformers PROGRAM]

Each client of benchmarks/serve/clients.py goes through as many new pages of 1288x728 pixels (299 tokens each) and asks
the trained pocket model about the newest, in one process per server, which listens on a loopback port:

ours          `kamera serve` with its default settings
exact         the same, asked for exact answers by the header x-kamera-fidelity
transformers  `transformers serve`, which has no cache between requests. It needs torchvision, so PROGRAM is a
              `transformers` in a virtual environment of its own; without it, this server is left out

prefix counts what the best of prefix caches computes: it forgets nothing and keeps the longest beginning, token by
token, that the prompt has in common with any earlier prompt and its answer. It is counted from the token ids of plain
Hugging Face. The history holds the answers of plain Hugging Face, so all servers get the same messages.

computed_ratio_prefix  tokens that a prefix cache computes over those that ours computes, sums over all steps
agree_exact, agree     share of the answers, with exact and with ours, that are those of a full prefill
cross_talk             answers that are not those of a full prefill, of two clients that begin alike and take turns at
                       the exact server, in all ways together
first_ms_p50           median time from the request to the first piece of the answer
ttft_ratio_transformers, steps_slower  sum of these times over that of ours, and the steps in which ours is the slower
background_s           seconds of a core that ours takes after its answers; all servers rest before the next is asked
cached_share           share of the prompt that is not computed, step by step

computed_ratio_prefix, agree_exact and ttft_ratio_transformers of the first level are those of the worst client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from platform import machine, processor
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.command import parser_of, show, versions
from benchmarks.serve.checkpoint import write_checkpoint
from benchmarks.serve.clients import CLIENTS
from benchmarks.serve.figures import summary
from benchmarks.serve.plain import Plain
from benchmarks.serve.process import Server, run_kamera, run_transformers
from benchmarks.serve.replay import Step, cross_talk, replay

# Of the walk of each client: a page that one has seen would be recalled for the next one.
SEEDS = {name: number for number, name in enumerate(CLIENTS)}
# Seeds of the two clients that begin alike, and the steps that they take.
PAIR, PAIR_STEPS = (101, 102), 8
WORST = ("computed_ratio_prefix", "agree_exact", "ttft_ratio_transformers")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=40, help="steps of each client (default 40)")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=[*CLIENTS], help="clients (default all)")
    parser.add_argument("--transformers", type=Path, metavar="PROGRAM", help="the program that runs transformers serve")
    options = parser.parse_args()
    with TemporaryDirectory() as folder, ExitStack() as running:
        checkpoint = Path(folder) / "pocket"
        write_checkpoint(checkpoint)
        plain = Plain(checkpoint)
        servers = {
            "ours": running.enter_context(run_kamera(checkpoint, Path(folder) / "ours")),
            "exact": running.enter_context(run_kamera(checkpoint, Path(folder) / "exact", "exact")),
        }
        if options.transformers:
            servers["transformers"] = running.enter_context(run_transformers(options.transformers, checkpoint))
        figures: dict[str, dict[str, Any]] = {}
        for name in options.clients:
            steps = [*_shown(name, replay(CLIENTS[name], plain, servers, options.steps, SEEDS[name]))]
            wrong = cross_talk(CLIENTS[name], plain, servers["exact"], min(PAIR_STEPS, options.steps), PAIR)
            figures[name] = {**summary(steps), "cross_talk": sum(wrong), "num_interleaved": len(wrong)}
    show({**_first_level(figures), **figures, "conditions": _conditions(options.steps, servers)}, options.json)


def _first_level(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    worst = {name: min(found) for name in WORST if (found := [one[name] for one in figures.values() if name in one])}
    return {**worst, "cross_talk": sum(one["cross_talk"] for one in figures.values())}


def _shown(name: str, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps, each printed as it comes."""
    for number, step in enumerate(steps, start=1):
        ours = step.given["ours"]
        tokens = f"full {len(step.full.prompt):5}  prefix {step.prefix:5}  ours {ours.computed or 0:5}"
        times = "  ".join(f"{server} {given.first_ms:6.0f} ms" for server, given in step.given.items())
        same = "same" if ours.text == step.full.text else "other"
        print(f"{name:7} {number:3}  {tokens}  {times}  {same} answer", flush=True)
        yield step


def _conditions(num_steps: int, servers: dict[str, Server]) -> dict[str, Any]:
    return {
        "model": "pocket, float32",
        "device": "cpu",
        "cpu": processor() or machine(),
        "threads": torch.get_num_threads(),
        "steps": num_steps,
        "servers": [*servers],
        "screenshot": "1288x728, 299 tokens",
        "seeds": SEEDS,
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
