"""A server like `kamera serve`, whose answers are those of a full prefill: python -m benchmarks.serve.exact FOLDER."""

from __future__ import annotations

import sys

from kamera_agent import Kamera
from kamera_agent.serve.app import make_app
from kamera_agent.serve.server import listen, serve


def main() -> None:
    (folder,) = sys.argv[1:]
    with listen("127.0.0.1", 0) as listening, Kamera.from_pretrained(folder, store=None, fidelity="exact") as kamera:
        print(f"{folder} is served at http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
        serve(make_app(kamera), listening)


if __name__ == "__main__":
    main()
