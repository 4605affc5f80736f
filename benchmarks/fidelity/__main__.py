"""Accuracy and divergence of every way of reuse, on the trained model.

    python -m benchmarks.fidelity --json [--cases 500] [--markdown FILE] [--plot FILE]
    python -m benchmarks.fidelity --json --backbones FOLDER [--cases 500]

Every cell is a task under an event (benchmarks/fidelity/events.py) with a method (benchmarks/fidelity/methods.py):
the same seeded cases for all methods. The last line is one JSON object. --backbones trains small models of several
classes first, two seeds each, into FOLDER, where they are found the next time.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.command import parser_of
from benchmarks.fidelity.backbones.training import train_all
from benchmarks.fidelity.measure import measure
from benchmarks.fidelity.report import as_markdown, backbones_as_markdown, draw
from kamera_agent.pocket.weights import WEIGHTS

# What tells the methods apart; a dozen models take long enough.
BACKBONE_EVENTS = ("recall_all", "reorder_3", "slide_one")


def main() -> None:
    """Run all cells and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=500, help="cases a cell")
    parser.add_argument("--model", default=str(WEIGHTS), help="folder of a checkpoint that knows the pocket's tasks")
    parser.add_argument("--backbones", type=Path, help="folder of trained backbones, measured instead of the model")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    if arguments.backbones and arguments.plot:
        parser.error("--plot draws one model; leave it out with --backbones")
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
