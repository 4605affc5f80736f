"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kamera_agent.config import DEFAULT_STORE

StoreFolder = Annotated[Path, typer.Argument(metavar="[STORE]", help="Folder of the store.")]
Tiers = Annotated[
    list[str],
    typer.Option(
        "--store",
        metavar="STORE",
        help="Folder of the store, or URL of a shared one; several, the fastest first, are tiers of one store.",
    ),
]
DEFAULT_TIERS = [DEFAULT_STORE]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        envvar="KAMERA_KEY",
        help="Key of an encrypted store: a file, or env:NAME for a variable, with 64 hexadecimal digits.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
