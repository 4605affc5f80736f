"""Accuracy and divergence of every method of reuse, on the trained model.

    python -m benchmarks.fidelity --json [--cases 500] [--markdown FILE] [--plot FILE]
    python -m benchmarks.fidelity --json --backbones FOLDER [--cases 500]

A cell is a task under an event (benchmarks/fidelity/events.py) with a method (benchmarks/fidelity/methods.py). All
methods have the same seeded cases. --backbones first trains small models of several classes into FOLDER, with two seeds
each; a later run finds them there.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.command import parser_of
from benchmarks.fidelity.backbones.training import train_all
from benchmarks.fidelity.measure import measure
from benchmarks.fidelity.report import as_markdown, backbones_as_markdown, draw
from kamera_agent.pocket.weights import WEIGHTS

# The events that separate the methods best. All of them would take too long for a dozen models.
BACKBONE_EVENTS = ("recall_all", "reorder_3", "slide_one")


def main() -> None:
    """Measure all cells and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=500, help="cases per cell (default 500)")
    parser.add_argument(
        "--model", default=str(WEIGHTS), help="folder of a checkpoint that was trained on the tasks of the pocket model"
    )
    parser.add_argument(
        "--backbones", type=Path, help="folder of trained backbones, which are measured instead of the model"
    )
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--plot", type=Path, help="file for the plot")
    arguments = parser.parse_args()
    if arguments.backbones and arguments.plot:
        parser.error("--plot draws a single model; remove it, or remove --backbones")
    if arguments.backbones:
        models = train_all(arguments.backbones)
        report = {name: measure(str(folder), arguments.cases, BACKBONE_EVENTS) for name, folder in models.items()}
        tables = backbones_as_markdown(report)
    else:
        report = measure(arguments.model, arguments.cases)
        tables = as_markdown(report["cells"])
    if arguments.markdown:
        arguments.markdown.write_text(tables + "\n")
    if arguments.plot:
        draw(report, arguments.plot)
    print(json.dumps(report) if arguments.json else tables)


if __name__ == "__main__":
    main()
