"""Inputs made of valid ones, seeded: where there is no engine that follows the coverage."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from benchmarks.torture.fuzz.judge import Judge

# What parsers trip over.
WORDS = [
    *(b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xed\xa0\x80", b"\\ud800", b'"', b"\\", b"\n", b"{}"),
    *(b"-1", b"1e400", b"NaN", b"null", b"true", b"0.5", b"18446744073709551616", b"9" * 5000, b" " * 20_000),
    *(b"[" * 5000, b'{"a":' * 3000, b'{"source":' * 900, b"<tool_call>", b"</tool_call>", b"<script>"),
    *(b"/etc/passwd", b"http://localhost/", b"data:,"),
]


def mutate(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """A valid input, changed in one place or several."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice([0, 1, 2, 4, 16, len(data)]))
        other = rng.choice(seeds)
        piece = rng.randrange(len(other) + 1)
        data[start:stop] = rng.choice(
            [
                rng.randbytes(max(1, stop - start) % 64),
                rng.choice(WORDS),
                other[piece : piece + rng.randrange(64)],
                data[start:stop] * 2,
                bytes(each ^ 1 << rng.randrange(8) for each in data[start:stop][:64]) + data[start:stop][64:],
            ]
        )
    return bytes(data)


def run(judge: Judge, seeds: Sequence[bytes], seconds: float, seed: int) -> None:
    """Meet mutated inputs for so long."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    for valid in seeds:
        judge.meet(valid)
    while time.monotonic() < end:
        judge.meet(mutate(seeds, rng))
