"""The KV transfer of `vllm serve` over a store, as JSON.

vllm serve MODEL --kv-transfer-config "$(python -m kamera_vllm MODEL STORE...)"
"""

from __future__ import annotations

import argparse
import json
import sys

from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.pages.window import engine_settings
from kamera_vllm.transfer import transfer_facts


def main() -> None:
    """Read a checkpoint, and print the transfer."""
    parser = argparse.ArgumentParser(prog="python -m kamera_vllm", description="Print a KV transfer for vllm serve.")
    parser.add_argument("model", help="hub id or folder of the checkpoint")
    parser.add_argument("store", nargs="+", help="folders or URLs, the fastest first")
    parser.add_argument("--dtype", default="auto", help="as that of vllm serve")
    options = parser.parse_args()
    blueprint = Blueprint.of(options.model, engine_settings({}, "kamera_vllm"), dtype=options.dtype)
    sys.stdout.write(json.dumps(transfer_facts(blueprint, options.store, {}, takes_orders=False)) + "\n")


if __name__ == "__main__":
    main()
