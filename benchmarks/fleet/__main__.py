"""A fleet of agents over tiers of stores: hits, bytes moved, time to first token and cost, over the working set.

    python -m benchmarks.fleet --json [--steps 240] [--plot docs/fleet.png]

Simulated: four machines with eight agents each, which take turns. Each session is a part of a recorded trace (the
screen agent of examples/ui_agent, and the day of `kamera demo`, with the last three screenshots in sight) over the
screens of an application. Applications, and the steps at which sessions enter, are chosen by Zipf's law. Three in ten
screens are private to a session. The planner, the library and the stores are the real ones: only the model's work is
left out, and its time is stated (benchmarks/fleet/assumptions.py). The working set is what all sessions share: more
applications, a larger one. The first half of the steps fills the tiers and is not counted. With no tier, a window has
only what it had before.

hit, new, other    shares of the screens that are not in the pool: recalled from a tier; seen by nobody before; known,
                   and computed all the same, because what is kept was computed after other screens, or was evicted
tokens_per_step    computed by ours, by a prefix cache of the same session that forgets nothing, and by a full prefill.
                   A refreshed screen counts by its share of the layers
loading_ms         what ours waits for its tiers, one after the other
first_token_ms     the tokens at the rate of a GPU, after that wait
tier_dollars       of the tiers, full or not, for a million steps
gpu_dollars        of a GPU for the tokens of a million steps, without background work

Measured: "machine" has the sums over the turns of three agents on this machine, with the pocket model and an LMDB store
below a memory tier, beside the simulation of the same turns, with stale chunks kept and refreshed. The times of the
simulation follow from a few turns that are timed before; they agree with the measured ones where the machine is quiet.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from os import getloadavg
from pathlib import Path
from typing import Any

from benchmarks.backbones.sizes import NUM_TOKENS, kept_bytes, text_model, token_flops
from benchmarks.command import parser_of, show, versions
from benchmarks.fleet.assumptions import ENGINE, PLAIN, STACKS, STEP_S, TIERS
from benchmarks.fleet.figures import summary
from benchmarks.fleet.hollow import HollowEngine, Size
from benchmarks.fleet.measurement import FIT, compare
from benchmarks.fleet.population import Population
from benchmarks.fleet.simulation import Fleet
from benchmarks.fleet.tiers import GB
from benchmarks.fleet.traces import recorded
from kamera_agent import Kamera
from kamera_agent.config import Settings

MODEL, GPUS = "Qwen3-VL-8B", (ENGINE, PLAIN)
NUM_MACHINES, NUM_AGENTS = 4, 8
NUM_APPLICATIONS = (1, 4, 16, 64, 256)
# Of the machine that is measured.
MEASURED_AGENTS, MEASURED_APPLICATIONS, MEASURED_STEPS = 3, 2, 20


def simulate(num_steps: int) -> list[dict[str, Any]]:
    """Figures by working set and tiers."""
    size = Size(NUM_TOKENS, kept_bytes(MODEL))
    fleet = Fleet(NUM_MACHINES, NUM_AGENTS, num_steps)
    points = []
    with Kamera.pocket() as kamera:
        engine = HollowEngine(kamera.family, text_model(MODEL).config.num_hidden_layers)
    for num_applications in NUM_APPLICATIONS:
        population = Population([*recorded().values()], num_applications)
        working_set = round(population.num_shared * size.num_bytes / GB, 1)
        stacks = {}
        for name, tiers in STACKS.items():
            turns = list(fleet.play(engine, tiers, size, population, Settings(heal="never")))
            stacks[name] = figures = summary(turns, fleet, tiers, GPUS, token_flops(MODEL))
            print(f"{working_set:8.1f} GB, {name}: hit {figures['hit']}, {figures['tokens_per_step']}", flush=True)
        points.append({"applications": num_applications, "working_set_gb": working_set, "stacks": stacks})
    return points


def conditions(num_steps: int) -> dict[str, Any]:
    """What the figures assume."""
    return {
        "model": MODEL,
        "gpus": [gpu._asdict() for gpu in GPUS],
        "screen": asdict(Size(NUM_TOKENS, kept_bytes(MODEL))),
        "tiers": {tier.name: [tier.cap_bytes, tier.bandwidth, tier.latency_s, tier.dollars] for tier in TIERS},
        "machines": NUM_MACHINES,
        "agents_per_machine": NUM_AGENTS,
        "steps_per_agent": num_steps,
        "seconds_between_steps": STEP_S,
        "chunks_that_fit_measured": FIT,
        "load": round(getloadavg()[0], 1),
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=240, help="steps of each simulated agent (default 240)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the simulated figures")
    options = parser.parse_args()
    points = simulate(options.steps)
    crew = Fleet(1, MEASURED_AGENTS, MEASURED_STEPS)
    population = Population([*recorded().values()], MEASURED_APPLICATIONS, session_len=MEASURED_STEPS // 2)
    machine = {stale: compare(crew, population, stale) for stale in ("keep", "refresh")}
    if options.plot:
        from benchmarks.fleet.chart import draw

        draw(points, options.plot)
    show({"points": points, "machine": machine, "conditions": conditions(options.steps)}, options.json)


if __name__ == "__main__":
    main()
