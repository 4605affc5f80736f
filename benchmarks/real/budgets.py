"""What the budgets of rank="auto" buy on real weights: divergence and replies by byte_budget and error_budget.

    python -m benchmarks.real.budgets --json [--cases 8] [--dtype bfloat16] [--long] [--markdown FILE]

Every document of a window comes back with a patch that was fitted in that window, over canonical KV and over its KV
after strangers, the first base. Documents have 100 to 120 tokens; the long ones are four of them in one, of 420 to 450.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from benchmarks.command import parser_of, versions
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.state import KV
from benchmarks.real.documents import Question, draw_shelf
from benchmarks.real.replies import reply
from benchmarks.real.run import FIRST_STRANGER, Subject
from benchmarks.real.score import figures, patch_means
from benchmarks.real.ways import by_layer, patched
from benchmarks.real.weights import DTYPES, FILE, PACKAGES, load
from kamera_agent.chunk import Chunk
from kamera_agent.config import Settings

BYTE_BUDGETS = (0.06, 0.12, 0.25, 0.35, 0.5)
ERROR_BUDGETS = (0.05, 0.1, 0.2)
NUM_QUESTIONS = 8


def run_case(subject: Subject, seed: int, long: bool) -> Iterator[dict[str, Any]]:
    """A row over canonical KV and one over the first base."""
    bench = subject.bench
    texts, questions = _read(seed, long)
    strangers, _ = _read(FIRST_STRANGER + seed, long)
    chunks, others = (
        [bench.engine.family.document_chunk(text, "bench") for text in drawn] for drawn in (texts, strangers[:2])
    )
    full = bench.prefilled(tuple(chunks))
    fresh = [full.read(place) for place in range(len(chunks))]
    bases = {
        "canonical": [bench.canonical(chunk) for chunk in chunks],
        "first": [_after(bench, others, chunk) for chunk in chunks],
    }
    for name, base in bases.items():
        variants: dict[str, Mapping[int, KV]] = {"full": {}, "unpatched": dict(enumerate(base))}
        patches = {}
        for byte_budget in BYTE_BUDGETS:
            for error_budget in ERROR_BUDGETS:
                settings = Settings(rank="auto", byte_budget=byte_budget, error_budget=error_budget)
                fitted = [patched(kv, old, settings) for kv, old in zip(fresh, base, strict=True)]
                way = f"{byte_budget} {error_budget}"
                variants[way] = {place: patch.kv for place, patch in enumerate(fitted)}
                patches[way] = by_layer(fitted)
        replies = reply(bench.engine.family, full, variants, questions)
        yield {"event": name, **replies, "patches": patches, "recomputed": {}}


def _read(seed: int, long: bool) -> tuple[list[str], list[Question]]:
    """Three documents and questions about them, or two long ones."""
    shelves = [draw_shelf(2 * seed + number) for number in range(2 if long else 1)]
    if long:
        texts = ["".join(shelf.texts) for shelf in shelves]
        fitting = [question for shelf in shelves for question in shelf.questions]
    else:
        texts = [*shelves[0].texts[:3]]
        fitting = [question for question in shelves[0].questions if max(question.needs) < len(texts)]
    return texts, Random(seed).sample(fitting, NUM_QUESTIONS)


def _after(bench: Bench, others: Sequence[Chunk], chunk: Chunk) -> KV:
    return bench.prefilled((*others, chunk)).read(len(others))


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By base and budgets: bytes, means of rank and error over layers, and the figures of the replies."""
    summary = {}
    for base in ("canonical", "first"):
        those = [row for row in rows if row["event"] == base]
        patches = patch_means([row["patches"] for row in those])
        summary[base] = {
            way: {
                **figures(those, way),
                **({"bytes_share": patches[way]["bytes_share"]} if way in patches else {}),
                **({name: mean(patches[way][name]) for name in ("ranks", "errors")} if way in patches else {}),
            }
            for way in those[0]["replies"]
        }
    return summary


def as_markdown(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A row per base and budgets."""
    lines = ["| base | byte_budget | error_budget | bytes | rank | error | KL median | mean | worst | kept |"]
    lines.append("|" + " --- |" * 10)
    for base, ways in summary.items():
        for way, row in ways.items():
            if way == "full":
                continue
            budgets = " | ".join(way.split()) if "bytes_share" in row else "unpatched | "
            spent = " | ".join(f"{row[name]:.2f}" for name in ("bytes_share", "ranks", "errors") if name in row)
            lines.append(
                f"| {base} | {budgets} | {spent or ' | | '} | {row['kl_median']:.5f} | {row['kl_mean']:.4f} | "
                f"{row['kl_worst']:.2f} | {row['kept']:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure all budgets and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=8, help="windows (default 8)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model (default bfloat16)")
    parser.add_argument("--long", action="store_true", help="documents of four times as many tokens")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help=f"folder of the weights (default {PACKAGES})")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    subject = Subject.of(load(arguments.packages, getattr(torch, arguments.dtype)))
    seeds = track(range(arguments.cases), "cases", console=Console(stderr=True))
    rows = [row for seed in seeds for row in run_case(subject, seed, arguments.long)]
    conditions = {
        "model": FILE.removesuffix(".gguf"),
        "dtype": arguments.dtype,
        "cases": arguments.cases,
        "long": arguments.long,
        "versions": versions(),
    }
    report = {"conditions": conditions, "budgets": summarise(rows)}
    table = as_markdown(report["budgets"])
    if arguments.markdown:
        arguments.markdown.write_text(table + "\n")
    print(json.dumps(report) if arguments.json else table)


if __name__ == "__main__":
    main()
