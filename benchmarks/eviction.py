"""What share of the chunks that come back is still in a full store, by the policy that evicts: simulated, on entries.

    python -m benchmarks.eviction --json

A day of an agent, made up and seeded: 3,000 requests, half a minute apart, for chunks of one size, of which 20 or 60
fit. No patches, so lfu and cost are the same here.

screens  screenshots that are seen once, and one of the last forty that is looked up again, one time in ten
pages    four of five requests are screenshots that are seen once; the others are for sixty pages, by Zipf's law
shift    as pages, and after half of the requests other sixty pages are asked for
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import count

from benchmarks.command import parser_of
from kamera_agent.store.entry import NAME_BYTES, Entry
from kamera_agent.store.eviction import POLICIES, Policy, order

NUM_REQUESTS, STEP_NS, CHUNK_BYTES = 3000, 30 * 10**9, 1 << 20
NUM_PAGES, SHARE_ONCE, SHARE_BACK, LAST = 60, 0.8, 0.1, 40
SEEDS = range(5)

Trace = Iterator[bytes]


def screens(rng: random.Random) -> Trace:
    """Screenshots, and look-backs to one of the last."""
    seen: list[bytes] = []
    for number in range(NUM_REQUESTS):
        if seen and rng.random() < SHARE_BACK:
            yield rng.choice(seen[-LAST:])
        else:
            seen.append(b"s%d" % number)
            yield seen[-1]


def pages(rng: random.Random, shift: bool = False) -> Trace:
    """Screenshots that are seen once, and pages that are asked for by Zipf's law."""
    for number in range(NUM_REQUESTS):
        first = NUM_PAGES if shift and number >= NUM_REQUESTS // 2 else 0
        page = rng.choices(range(NUM_PAGES), [1 / rank for rank in range(1, NUM_PAGES + 1)])[0]
        yield b"s%d" % number if rng.random() < SHARE_ONCE else b"p%d" % (first + page)


TRACES: dict[str, Callable[[random.Random], Trace]] = {
    "screens": screens,
    "pages": pages,
    "shift": lambda rng: pages(rng, shift=True),
}


def hit_share(trace: Trace, policy: Policy, capacity: int) -> float:
    """Of the requests for a chunk that was asked for before, the share that the store still has."""
    entries: dict[bytes, Entry] = {}
    known, num_hits, num_back = set[bytes](), 0, 0
    for now, chunk in zip(count(STEP_NS, STEP_NS), trace, strict=False):
        num_back += chunk in known
        known.add(chunk)
        if entry := entries.get(chunk):
            num_hits += 1
            entries[chunk] = entry._replace(tick=now, hits=entry.hits + 1)
            continue
        entries[chunk] = Entry(now, CHUNK_BYTES, now, 0, bytes(NAME_BYTES), chunk, None)
        while len(entries) > capacity:
            del entries[order(entries, policy, (), now)[0]]
    return num_hits / num_back


def measure(capacity: int) -> dict[str, dict[str, float]]:
    """Mean share by trace and policy over the seeds."""
    return {
        name: {
            policy: round(sum(hit_share(make(random.Random(seed)), policy, capacity) for seed in SEEDS) / len(SEEDS), 3)
            for policy in POLICIES
        }
        for name, make in TRACES.items()
    }


def main() -> None:
    args = parser_of(__doc__).parse_args()
    # Of each capacity, in chunks.
    results = {str(capacity): measure(capacity) for capacity in (20, 60)}
    for capacity, shares in results.items():
        print(f"{capacity} chunks fit")
        for name, by_policy in shares.items():
            print(f"{name:>10}  " + ", ".join(f"{policy} {share:.3f}" for policy, share in by_policy.items()))
    if args.json:
        conditions = {
            "requests": NUM_REQUESTS,
            "seconds_between": STEP_NS / 1e9,
            "pages": NUM_PAGES,
            "seeds": len(SEEDS),
        }
        print(json.dumps({"shares": results, "conditions": conditions}))


if __name__ == "__main__":
    main()
