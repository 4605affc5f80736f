"""What a store must survive: kills, power cuts, damaged files, failing system calls, and a crowd.

    python -m benchmarks.torture --json [--seed 0] [--times 1.0] [--only PART...]

kills   1,000 processes ended by SIGKILL while they write, evict, repair, change the key of a store, or close it
power   1,000 power cuts, simulated over the system calls that were made: what is not synced is there in part, or not
damage  20,000 bits flipped, pages cut off, zeroed, swapped and doubled in every region of the files; and 1,000 that
        left size and time as they were, in a store that was closed in good order and seems to have more than 1 GiB
faults  every call of a store on its files, and of LMDB for memory, fails: EIO, ENOSPC, EMFILE, ENOMEM, short writes
answers 300 of the same under a model that answers, against its answers without a store
crowd   3 minutes of 8 processes with 4 threads each, which wish for different caps, fork, and are killed
strangers  10,000 lookups each of pictures that a namespace holds and does not hold, by somebody without its secret

The figures: kills, cuts, mutations, faults and refused (a store that cannot be opened, with an error that says so) are
what was done. Each of these must be 0: lost and unsound (after a kill or a power cut), wrong (bytes), deaths (of a
process that used a store), unwritable, unreported (a loss that check() does not name), failed_answers, unsaid and
repeated (of a failure that must be said once), load_wrong and hangs (of the crowd), oversize (a file above its bound),
told_apart (by a two-sample test of the times of a stranger's lookups).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.command import parser_of
from benchmarks.torture import answers, crowd, damage, faults, kills, power, strangers
from benchmarks.torture.figures import MUST_BE_0, Figures

EVERY = 1 << 30
# What to run so often, or for so many seconds.
PARTS: dict[str, tuple[Callable[[int, int], Figures], int]] = {
    "kills": (kills.run, 1000),
    "power": (power.run, 1000),
    "damage": (damage.run, 20_000),
    "faults": (partial(faults.run, faults.__name__), EVERY),
    "answers": (partial(faults.run, answers.__name__), 300),
    "crowd": (crowd.run, 180),
    "strangers": (strangers.run, 10_000),
}
DONE = ("kills", "mutations", "faults")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, default=1.0, help="so many times as much (default 1)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    args = parser.parse_args()
    total = Figures()
    for name in args.only:
        run, count = PARTS[name]
        start = time.monotonic()
        figures = run(max(1, round(count * args.times)), args.seed)
        total += figures
        seconds = time.monotonic() - start
        print(
            f"{name:>9}  {seconds:6.0f} s  " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True
        )
    result = {key: total[key] for key in dict.fromkeys((*DONE, *MUST_BE_0, *total))}
    if args.json:
        print(json.dumps(result))
    sys.exit(any(total[key] for key in MUST_BE_0))


if __name__ == "__main__":
    main()
