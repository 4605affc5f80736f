"""Options and output that the benchmarks share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import torch
import transformers


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser with --json whose help is the docstring of a module."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result as JSON: on one line if as_json, indented otherwise."""
    print(json.dumps(result, indent=None if as_json else 2))


def versions() -> dict[str, str]:
    """The versions of the libraries that decide about speed and numbers."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}
