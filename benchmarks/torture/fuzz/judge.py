"""What counts as a failure: an exception that is not of our tree, an input that takes long, or much memory."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

from benchmarks.torture.figures import Figures
from benchmarks.torture.fuzz.entries import Entry
from kamera_agent.errors import KameraError

SLOW_S = 2.0
# Above what the process has when it begins.
MORE_MEMORY_BYTES = 1 << 30
INPUTS_BETWEEN_SAVES, MAX_NOTES = 200, 5


class Judge:
    """Gives inputs to an entry, and counts. The figures are in a file, the first failures in one of notes beside it."""

    def __init__(self, entry: Entry, path: Path) -> None:
        self._entry, self._path = entry, path
        self.figures = Figures()
        self._memory = _peak_bytes()

    def meet(self, data: bytes) -> None:
        """Give an input to the entry."""
        self.figures["fuzz_inputs"] += 1
        start = time.perf_counter()
        try:
            self._entry.take(data)
        except KameraError:
            self.figures["fuzz_refused"] += 1
        except Exception as error:  # noqa: BLE001 - that is what is counted
            self._note("fuzz_foreign", data, f"{type(error).__name__}: {error}")
        if (seconds := time.perf_counter() - start) > SLOW_S:
            self._note("fuzz_slow", data, f"{seconds:.1f} s")
        if (peak := _peak_bytes()) > self._memory + MORE_MEMORY_BYTES:
            self._note("fuzz_large", data, f"{(peak - self._memory) >> 20} MiB")
            self._memory = peak
        if self.figures["fuzz_inputs"] % INPUTS_BETWEEN_SAVES == 0:
            self._save()

    def _note(self, what: str, data: bytes, why: str) -> None:
        self.figures[what] += 1
        if self.figures[what] <= MAX_NOTES:
            with self._path.with_suffix(".notes").open("a", encoding="utf-8") as notes:
                notes.write(f"{what}: {why[:300]!r}: {data[:300]!r}\n")
        self._save()

    def _save(self) -> None:
        self._path.write_text(json.dumps(self.figures))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
