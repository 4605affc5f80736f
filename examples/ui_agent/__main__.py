"""Run the screen agent, its model on plain Hugging Face and on ChatKamera, and compare the two.

python -m examples.ui_agent [--fidelity exact] [--steps 10] [--picture build/ui_agent.png]
"""

from __future__ import annotations

import argparse
import asyncio
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import torch
import transformers
from rich.console import Console

from examples.ui_agent.cached import Cached
from examples.ui_agent.chart import draw
from examples.ui_agent.comparison import compare
from examples.ui_agent.episode import play
from examples.ui_agent.pair import Pair, warm_up
from examples.ui_agent.plain import load_plain
from examples.ui_agent.report import print_report
from kamera_agent import Kamera
from kamera_agent.config import Fidelity

TABLE_WIDTH = 165


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fidelity", choices=get_args(Fidelity), default="patched", help="the KV that answers may use")
    parser.add_argument("--steps", type=int, help="number of steps to run (default: all)")
    parser.add_argument("--picture", type=Path, default=Path("build/ui_agent.png"), help="path of the picture to write")
    options = parser.parse_args()
    console = Console(width=TABLE_WIDTH, highlight=False, markup=False)
    console.print("The agent walks through the shop and MiniWoB++. Plain Hugging Face and ChatKamera answer ...")
    plain = load_plain()
    with Kamera.pocket(fidelity=options.fidelity) as kamera:
        warm_up(plain)
        warm_up(Cached(kamera, "warm-up"))
        pair = Pair(plain, Cached(kamera))
        records = asyncio.run(play(pair, options.steps))
    cached = [replace(record, turn=turn) for record, turn in zip(records, pair.seconds, strict=True)]
    steps = compare(records, cached)
    print_report(steps, console)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(steps, options.picture)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    console.print(f"{datetime.now(UTC).date()}, fidelity {options.fidelity}, {machine}, {versions}")
    console.print(f"Picture: {options.picture}")


if __name__ == "__main__":
    main()
