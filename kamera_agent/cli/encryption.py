"""`kamera rekey`: another key for a store."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.console import Console

from kamera_agent.store.environment import OLDER_DATABASES
from kamera_agent.store.rekey import rekey


def rekey_store(path: Path, key: str | None, new_key: str, as_json: bool) -> None:
    """Write a store anew under another key, and print what became of its records."""
    with Console(stderr=True).status("Writing the records anew"):
        num_written, num_damaged = rekey(path, key, new_key)
    left = [other for other in path.iterdir() if other.name in OLDER_DATABASES or other.suffix == ".damaged"]
    for plain in sorted(left):
        typer.echo(f"{plain} is as it was; delete it if it must not be read without the key.", err=True)
    if as_json:
        typer.echo(json.dumps({"num_records": num_written, "num_damaged": num_damaged}, indent=2))
        return
    damaged = f"; {num_damaged} damaged ones were left out" if num_damaged else ""
    typer.echo(f"{num_written} records are encrypted with the new key{damaged}.")
