"""`kamera bench`: what a store does on the disk of a folder."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from kamera_agent.chunk import Record
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.config import MIB
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.speed import (
    NUM_TOKENS,
    make_base,
    make_layers,
    measure,
    percentiles,
    plain_steps,
    store_steps,
)

CAP_BYTES = 512 * MIB
KEY = bytes(range(32))


class Figures(NamedTuple):
    """A way to move the bytes of a record: milliseconds, GB/s at the median, and that over the rate of a memcpy."""

    form: str
    step: str
    num_bytes: int
    p50_ms: float
    p99_ms: float
    gbps: float
    of_memcpy: float


def bench_disk(place: Path, num_rounds: int, as_json: bool) -> None:
    """Measure a new store in a folder, print its figures, and remove it. What else is in the folder stays as it is.

    Raises StoreUnavailableError where nothing can be written there.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        said = Console(stderr=True).status(f"Writing and reading a chunk, {num_rounds} times each")
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=place) as folder, said:
            figures = _figures(Path(folder), num_rounds)
    except OSError as error:
        raise StoreUnavailableError(f"the disk of {place} cannot be measured: {error}. Pass another folder.") from error
    if as_json:
        conditions = {"tokens": NUM_TOKENS, "rounds": num_rounds, "place": str(place)}
        typer.echo(json.dumps({"figures": [each._asdict() for each in figures], "conditions": conditions}, indent=2))
    else:
        _print(figures)


def _figures(folder: Path, num_rounds: int) -> list[Figures]:
    """Of a chunk in every form that a store keeps it in, and of its bytes in a plain file and in memory."""
    records = _records()
    with ExitStack() as stack:
        steps = dict[str, Callable[[], object]]()
        for form, record in records.items():
            key = (lambda: KEY) if form == "encrypted" else None
            store = stack.enter_context(LmdbStore(folder / form, CAP_BYTES, key=key))
            steps |= {f"{form} {name}": step for name, step in store_steps(store, record).items()}
        steps |= {f"plain {name}": step for name, step in plain_steps(folder / "plain", records["full"]).items()}
        times = measure(steps, num_rounds)
    sizes = {form: record.header.num_bytes for form, record in records.items()}
    return _rated(times, sizes | {"plain": sizes["full"]})


def _records() -> dict[str, Record]:
    layers = make_layers(0, torch.bfloat16)
    rounded = [[tensor for tensor in compressed(LayerKV(*layer)) if tensor is not None] for layer in layers]
    records = {"full": make_base("full", layers), "int8": make_base("int8", rounded)}
    return records | ({"encrypted": records["full"]} if find_spec("cryptography") else {})


def _rated(times: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> list[Figures]:
    memcpy = sizes["plain"] / statistics.median(times["plain memcpy"])
    figures = []
    for name, seconds in times.items():
        form, step = name.split()
        rate = sizes[form] / statistics.median(seconds)
        ms = percentiles(seconds)
        rates = round(rate / 1e9, 3), round(rate / memcpy, 3)
        figures.append(Figures(form, step, sizes[form], ms["p50_ms"], ms["p99_ms"], *rates))
    return figures


def _print(figures: Sequence[Figures]) -> None:
    table = Table("chunk", "step", box=None, pad_edge=False)
    for name in ("size", "p50", "p99", "rate", "of memcpy"):
        table.add_column(name, justify="right")
    for each in figures:
        times = f"{each.p50_ms:.1f} ms", f"{each.p99_ms:.1f} ms"
        size = format_bytes(each.num_bytes)
        table.add_row(each.form, each.step, size, *times, f"{each.gbps:.2f} GB/s", f"{each.of_memcpy:.2f}")
    make_console().print(table)
