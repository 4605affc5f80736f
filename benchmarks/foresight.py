"""Tokens that a step computes where the next drop is foreseen, beside the same without a forecast.

    python -m benchmarks.foresight --json [--steps 20] [--clients drop stub]

Clients of benchmarks/serve/clients.py show the pocket model a new page of 1288x728 pixels (299 tokens) at every step,
and drop old ones. Two chats get the same messages, in turn: foreseen with heal="ahead", and healed with heal="idle",
which heals what is there and foresees nothing. Both have all the time that they need between two steps.

computed  tokens that each step computes. mean: from the sixth step on, when all clients have dropped a page
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from platform import machine, processor
from statistics import mean
from typing import Any

from benchmarks.command import parser_of, show, versions
from benchmarks.serve.clients import CLIENTS, Turn
from benchmarks.serve.walk import walk
from kamera_agent import Kamera
from kamera_agent.serve.client import Client
from kamera_agent.serve.completions.body import ChatRequest
from kamera_agent.serve.completions.reading import read_chat
from kamera_agent.serve.said import Said
from kamera_agent.turns.chat import Chat, Limits
from kamera_agent.window.reply import Reply

SEED, FIRST = 0, 5
WAYS = {"foreseen": "ahead", "healed": "idle"}
# Those that leave something to foresee: the others rewrite the text before the newest pages at every step.
FORESEEABLE = ("drop", "stub", "chunk")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="steps of each client (default 20)")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=[*FORESEEABLE], help="clients")
    options = parser.parse_args()
    figures = {name: _figures([*_shown(name, options.steps)]) for name in options.clients}
    conditions = {
        "model": "pocket, float32",
        "cpu": processor() or machine(),
        "steps": options.steps,
        "seed": SEED,
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    show({**figures, "conditions": conditions}, options.json)


def _shown(name: str, num_steps: int) -> Iterator[dict[str, Reply]]:
    """The replies of both chats, step by step, each printed as it comes."""
    with ExitStack() as opened:
        kameras = {way: opened.enter_context(Kamera.pocket(heal=heal)) for way, heal in WAYS.items()}
        chats = {
            way: opened.enter_context(Chat(kamera, None, {}, Limits(8, 8 << 30, None)))
            for way, kamera in kameras.items()
        }
        said: list[Turn] = []
        for number, turn in enumerate(islice(walk(SEED), num_steps), start=1):
            body = ChatRequest.model_validate({"messages": CLIENTS[name]([*said, turn]), "max_tokens": 8})
            request = read_chat(body).request(Client(None, name), Said())
            replies = {}
            for way in list(WAYS)[:: 1 if number % 2 else -1]:
                with chats[way].answer(request) as stream:
                    replies[way] = stream.finish()
                kameras[way].settle()
            said.append(replace(turn, reply=replies["foreseen"].text))
            counts = "  ".join(f"{way} {replies[way].plan.num_computed:5}" for way in WAYS)
            print(f"{name:7} {number:3}  full {replies['foreseen'].plan.num_tokens():5}  {counts}", flush=True)
            yield replies


def _figures(steps: Sequence[dict[str, Reply]]) -> dict[str, Any]:
    return {
        way: {
            "mean": round(mean(step[way].plan.num_computed for step in steps[FIRST:]), 1),
            "computed": [step[way].plan.num_computed for step in steps],
        }
        for way in WAYS
    }


if __name__ == "__main__":
    main()
