"""Accuracy and divergence on SmolLM2-135M-Instruct, a text model with real weights.

    make real
    python -m benchmarks.real --json [--cases 40] [--events NAME ...] [--dtype bfloat16] [--parts FOLDER]
        [--markdown FILE]

A case is four documents and two strangers. After each event the model answers four questions about one document and
four about two (benchmarks/real/documents.py), with the documents' KV of every way (benchmarks/real/ways.py). A run
that is stopped goes on with the same --parts.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.command import parser_of, versions
from benchmarks.fidelity.cores import on_all_cores
from benchmarks.real.jobs import Job, run_job
from benchmarks.real.report import as_markdown
from benchmarks.real.run import NUM_ASKED, PLAYED
from benchmarks.real.score import summarise
from benchmarks.real.weights import DTYPES, FILE, PACKAGES


def measure(
    packages: Path, dtype: str, num_cases: int, parts: Path | None, events: Sequence[str] = PLAYED
) -> dict[str, Any]:
    """Conditions and figures. Uses all cores."""
    if parts:
        parts.mkdir(parents=True, exist_ok=True)
    jobs = [Job(packages, dtype, parts, seed, events) for seed in range(num_cases)]
    rows = [row for case in on_all_cores(run_job, jobs, "cases") for row in case]
    return {
        "conditions": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": FILE.removesuffix(".gguf"),
            "dtype": dtype,
            "device": "cpu",
            "machine": platform.machine(),
            "cases": num_cases,
            "questions_per_window": sum(NUM_ASKED),
            "versions": versions(),
        },
        **summarise(rows),
    }


def main() -> None:
    """Measure all events and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=40, help="cases per event (default 40)")
    parser.add_argument("--events", nargs="+", choices=PLAYED, default=PLAYED, help="events (default all)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model (default bfloat16)")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help=f"folder of the weights (default {PACKAGES})")
    parser.add_argument("--parts", type=Path, help="folder for the figures of finished cases, to go on from them")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    report = measure(arguments.packages, arguments.dtype, arguments.cases, arguments.parts, tuple(arguments.events))
    tables = as_markdown(report)
    if arguments.markdown:
        arguments.markdown.write_text(tables + "\n")
    print(json.dumps(report) if arguments.json else tables)


if __name__ == "__main__":
    main()
