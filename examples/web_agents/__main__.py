"""Run an agent that knows nothing of kamera over its server, and count what it computes.

python -m examples.web_agents smolagents
python -m examples.web_agents computer-use
python -m examples.web_agents browser-use [--python build/browser_use/bin/python]

browser-use runs in a virtual environment of its own (--python), which has no kamera_agent. The agent's requests are
then sent again, as they were, to a server that keeps what a prefix cache keeps, and computes nothing ahead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import torch

from examples.web_agents.checkpoint import write_checkpoint
from examples.web_agents.served import Cost, repeat, served
from kamera_agent import Kamera
from kamera_agent.config import SettingOptions

PREFIX_CACHE: SettingOptions = {"fidelity": "exact", "heal": "never"}
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("browser_use_agent.py")
# It would tell its makers what it does, and look for a newer version.
QUIET = ("ANONYMIZED_TELEMETRY", "BROWSER_USE_CLOUD_SYNC", "BROWSER_USE_VERSION_CHECK", "BROWSER_USE_CLOUD_HINTS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", choices=["smolagents", "computer-use", "browser-use"])
    parser.add_argument(
        "--python", type=Path, default=ROOT / "build/browser_use/bin/python", help="the Python that has browser-use"
    )
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        model = Path(folder) / "caller"
        write_checkpoint(model)
        with load(model) as kamera, served(kamera) as (url, recorder):
            if options.agent == "browser-use":
                run_browser_use(options.python, url, model)
            else:
                name = f"examples.web_agents.{options.agent.replace('-', '_')}_agent"
                import_module(name).run(url, str(model))
        with load(model, **PREFIX_CACHE) as kamera:
            show(recorder.costs, repeat(kamera, recorder.requests))


def load(model: Path, **options: Unpack[SettingOptions]) -> Kamera:
    """A Kamera over the checkpoint, which is in float16 and runs in float32. Without a store on the disk."""
    return Kamera.from_pretrained(model, store=None, dtype=torch.float32, **options)


def run_browser_use(python: Path, url: str, model: Path) -> None:
    """Run browser-use on the pages of the shop. Raises SystemExit where one of its steps has failed."""
    from examples.ui_agent.server import serve

    quiet = dict.fromkeys(QUIET, "false")
    with serve() as pages:
        command = [str(python), str(PROGRAM), url, str(model), pages]
        done = subprocess.run(command, env=os.environ | quiet, stdout=subprocess.PIPE, text=True, check=True)
    if errors := json.loads(done.stdout.splitlines()[-1]):
        raise SystemExit(f"Steps of browser-use have failed: {errors}")


def show(ours: Sequence[Cost], prefix: Sequence[Cost]) -> None:
    """Print the tokens of every request and their sums."""
    print(f"{'step':>4} {'prompt':>8} {'computed':>9} {'prefix cache':>13}")
    for number, (own, other) in enumerate(zip(ours, prefix, strict=True), start=1):
        print(f"{number:>4} {own.prompt:>8} {own.computed:>9} {other.computed:>13}")
    sums = [sum(getattr(cost, name) for cost in costs) for costs, name in ((ours, "prompt"), (ours, "computed"))]
    kept = sum(cost.computed for cost in prefix)
    print(f" sum {sums[0]:>8} {sums[1]:>9} {kept:>13}   prefix cache / computed: {kept / sums[1]:.2f}")


if __name__ == "__main__":
    main()
