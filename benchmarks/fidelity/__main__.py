"""Accuracy and divergence of every method of reuse, on the trained model.

    python -m benchmarks.fidelity --json [--cases 500] [--studied 100] [--parts FOLDER] [--markdown FILE] [--plot FILE]
    python -m benchmarks.fidelity --json --backbones FOLDER [--seeds 1 2] [--cases 500]

A cell is a task under an event (benchmarks/fidelity/events.py) with a method (benchmarks/fidelity/methods.py). All
methods have the same seeded cases; those that are no main methods have the first of them. A run that is stopped goes on
with the same --parts. --backbones first trains small models of several classes into FOLDER, one per
seed; a later run finds them there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.command import parser_of
from benchmarks.fidelity.backbones.training import train_all
from benchmarks.fidelity.measure import Extent, measure
from benchmarks.fidelity.report import as_markdown, backbones_as_markdown, draw
from kamera_agent.pocket.weights import WEIGHTS

# The events that separate the methods best. All of them would take too long for a dozen models.
BACKBONE_EVENTS = ("recall_all", "reorder_3", "slide_one", "second_context")


def main() -> None:
    """Measure all cells and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=500, help="cases per cell (default 500)")
    parser.add_argument("--studied", type=int, default=100, help="cases that every method answers (default 100)")
    parser.add_argument("--parts", type=Path, help="folder for the results of finished shards, to go on from them")
    parser.add_argument(
        "--model", default=str(WEIGHTS), help="folder of a checkpoint that was trained on the tasks of the pocket model"
    )
    parser.add_argument(
        "--backbones", type=Path, help="folder of trained backbones, which are measured instead of the model"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the trained backbones (default 1 2)")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--plot", type=Path, help="file for the plot")
    arguments = parser.parse_args()
    if arguments.studied < 1:
        parser.error(f"--studied is {arguments.studied}; use at least 1")
    if arguments.backbones and arguments.plot:
        parser.error("--plot draws a single model; remove it, or remove --backbones")
    if arguments.backbones:
        models = train_all(arguments.backbones, arguments.seeds)
        report = {
            name: measure(str(folder), _extent(arguments, name), BACKBONE_EVENTS) for name, folder in models.items()
        }
        tables = backbones_as_markdown(report)
    else:
        report = measure(arguments.model, _extent(arguments, "model"))
        tables = as_markdown(report["cells"])
    if arguments.markdown:
        arguments.markdown.write_text(tables + "\n")
    if arguments.plot:
        draw(report, arguments.plot)
    print(json.dumps(report) if arguments.json else tables)


def _extent(arguments: argparse.Namespace, model: str) -> Extent:
    return Extent(arguments.cases, arguments.studied, arguments.parts and arguments.parts / model)


if __name__ == "__main__":
    main()
