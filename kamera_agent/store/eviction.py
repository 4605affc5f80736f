"""Which records go first when a store is full: policies as data.

A policy gives a record a worth; the least worth goes first. A base is worth as much as the worthiest of its patches,
and goes after them, because it takes them with it.

lru   the time of the last use.
lfu   uses per time since the record was written ("hyperbolic caching", Blankstein, Sen and Freedman, USENIX ATC 2017).
      A screenshot that is seen once does not push out a page that is used every day.
cost  the same, times what the chunk costs to compute again over the bytes that the record takes. The bytes of a base
      stand for its tokens, so this tells patches from bases, and thin patches from thick ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import get_args

from kamera_agent.config import Policy
from kamera_agent.store.entry import Entry

# Of a record that was just written, one use more or less says little.
GRACE_NS = 10 * 60 * 10**9

Worth = Callable[[Entry, int, int], float]


def _frequency(entry: Entry, now: int) -> float:
    return (entry.hits + 1) / (max(0, now - entry.put_ns) + GRACE_NS)


# Of an entry, the bytes of the base of its chunk, and the time in ns since 1970.
WORTHS: dict[Policy, Worth] = {
    "lru": lambda entry, base_bytes, now: entry.tick,
    "lfu": lambda entry, base_bytes, now: _frequency(entry, now),
    "cost": lambda entry, base_bytes, now: _frequency(entry, now) * base_bytes / entry.num_bytes,
}
POLICIES: tuple[Policy, ...] = get_args(Policy)


def order(entries: Mapping[bytes, Entry], policy: Policy, pins: Collection[bytes], now: int) -> list[bytes]:
    """The digests of all records, the one to go first first. pins: chunks that go last. now: ns since 1970."""
    worths = {digest: _worth(entry, entries, policy, now) for digest, entry in entries.items()}
    for digest, entry in entries.items():
        if entry.base in worths:
            worths[entry.base] = max(worths[entry.base], worths[digest])
    # After the last use, records of one worth, such as those that were never used.
    return sorted(
        entries,
        key=lambda digest: (
            entries[digest].chunk in pins,
            worths[digest],
            entries[digest].base is None,
            entries[digest].tick,
        ),
    )


def _worth(entry: Entry, entries: Mapping[bytes, Entry], policy: Policy, now: int) -> float:
    base = entries.get(entry.base) if entry.base else None
    return WORTHS[policy](entry, (base or entry).num_bytes, now)
