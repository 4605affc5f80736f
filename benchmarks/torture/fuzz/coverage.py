"""Inputs that follow the coverage of our code: atheris, where it is installed. It has wheels for some Pythons only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

HANGS_AFTER_S = 20


def is_possible() -> bool:
    """Whether atheris is installed."""
    return find_spec("atheris") is not None


def run(name: str, figures: Path, corpus: Path, seconds: float, seed: int) -> None:
    """Meet inputs for so long, beginning with a corpus of files. Ends the process."""
    import atheris

    with atheris.instrument_imports(include=["kamera_agent"]):
        from benchmarks.torture.fuzz.entries import ENTRIES
        from benchmarks.torture.fuzz.judge import Judge

    entry = ENTRIES[name]
    for number, valid in enumerate(entry.seeds()):
        (corpus / f"seed{number}").write_bytes(valid)
    options: Sequence[str] = [
        *(f"-max_total_time={round(seconds)}", f"-seed={seed + 1}", f"-timeout={HANGS_AFTER_S}", "-rss_limit_mb=0"),
        *("-max_len=65536", "-len_control=0", "-print_final_stats=0", "-verbosity=0", str(corpus)),
    ]
    atheris.Setup([sys.argv[0], *options], Judge(entry, figures).meet)
    atheris.Fuzz()
