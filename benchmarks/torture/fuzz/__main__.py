"""Hostile input: bytes made to break what reads them, at each place where bytes come from outside.

    python -m benchmarks.torture.fuzz --json [--seconds 600] [--seed 0] [--only ENTRY...]

header   of a record          archive  of kamera import            image   in any accepted format
reply    with tool calls      trace    up to its page              blocks  the content of a message, as JSON

The seconds are shared by the entries. With atheris, inputs follow the coverage of our code; without it, they are
valid inputs with seeded changes, and the last line says so. Each of these must be 0: fuzz_foreign (an exception that is
not a KameraError), fuzz_slow (an input that takes more than 2 s), fuzz_large (more than 1 GiB of memory) and
fuzz_deaths (of the process, or a hang of 20 s).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.command import parser_of
from benchmarks.torture.figures import Figures
from benchmarks.torture.fuzz import coverage

NAMES = ("header", "archive", "image", "reply", "trace", "blocks")
MUST_BE_0 = ("fuzz_foreign", "fuzz_slow", "fuzz_large", "fuzz_deaths")
WORK = "--work"
# For a process to begin, and to end after its time.
GRACE_S = 180
# Decoders and engines write much to both.
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def run(name: str, seconds: float, seed: int, with_coverage: bool) -> Figures:
    """Fuzz an entry in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        figures, corpus = Path(folder, "figures"), Path(folder, "corpus")
        corpus.mkdir()
        figures.write_text("{}")
        work = [WORK, name, str(figures), str(corpus), str(seconds), str(seed), str(int(with_coverage))]
        command = [sys.executable, "-W", "ignore", "-m", __spec__.name, *work]
        try:
            code = subprocess.run(command, timeout=seconds + GRACE_S, **QUIET).returncode
        except subprocess.TimeoutExpired:
            code = 1
        if (notes := figures.with_suffix(".notes")).exists():
            print(notes.read_text("utf-8"), end="")
        return Figures(json.loads(figures.read_text())) + Figures(fuzz_deaths=code != 0)


def work(name: str, figures: str, corpus: str, seconds: str, seed: str, with_coverage: str) -> None:
    """What the process does."""
    if int(with_coverage):
        coverage.run(name, Path(figures), Path(corpus), float(seconds), int(seed))
    from benchmarks.torture.fuzz import mutation
    from benchmarks.torture.fuzz.entries import ENTRIES
    from benchmarks.torture.fuzz.judge import Judge

    entry = ENTRIES[name]
    mutation.run(Judge(entry, Path(figures)), entry.seeds(), float(seconds), int(seed))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="in all (default 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="ENTRY")
    args = parser.parse_args()
    total, with_coverage = Figures(), coverage.is_possible()
    for name in args.only:
        figures = run(name, args.seconds / len(args.only), args.seed, with_coverage)
        total += figures
        print(f"{name:>8}  " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    result = {key: total[key] for key in dict.fromkeys((*MUST_BE_0, *total))}
    if args.json:
        print(json.dumps({**result, "engine": "atheris" if with_coverage else "seeded changes"}))
    sys.exit(any(total[key] for key in MUST_BE_0))


if __name__ == "__main__":
    work(*sys.argv[2:]) if sys.argv[1:2] == [WORK] else main()
