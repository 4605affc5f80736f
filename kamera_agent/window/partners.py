"""Partners: which KV in the pool an item may take over."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence

from kamera_agent.chunk import Chunk
from kamera_agent.window.layout import Item, Place
from kamera_agent.window.resident import Resident, num_common


def find_partners(
    places: Sequence[Place], residents: Sequence[Resident], spares: Sequence[Resident]
) -> list[Resident | None]:
    """For every place, KV in the pool that it may take over.

    KV that is exact in a place goes first, then what is in the unchanged beginning of the window, then the resident of
    the item's own id; a chunk then takes any other of the same content, in order. A text of another id is computed:
    that is cheap, and it was said elsewhere for another reason.
    """
    num_same = num_common(places, residents)
    partners: list[Resident | None] = [resident if resident.exact else None for resident in residents[:num_same]]
    partners += [None] * (len(places) - num_same)
    in_place = set(map(id, partners))
    free = {id(resident): resident for resident in (*residents, *spares) if id(resident) not in in_place}

    by_chain = {place.before.chain: index for index, place in enumerate(places) if partners[index] is None}
    for resident in [one for one in free.values() if one.seen.exact and one.seen.chain in by_chain]:
        index = by_chain[resident.seen.chain]
        if partners[index] is None and resident.place.item.run.digest == places[index].item.run.digest:
            partners[index] = free.pop(id(resident))
    for index, resident in enumerate(residents[:num_same]):
        if partners[index] is None:
            partners[index] = free.pop(id(resident), None)
    for key_of in (_own, _content):
        waiting = defaultdict[Hashable, deque[Resident]](deque)
        for resident in free.values():
            waiting[key_of(resident.place.item)].append(resident)
        for index in [index for index, partner in enumerate(partners) if partner is None]:
            if same := waiting.get(key_of(places[index].item)):
                partners[index] = free.pop(id(same.popleft()))
    return partners


def _own(item: Item) -> Hashable:
    return item.id, item.run.digest


def _content(item: Item) -> Hashable:
    """The digest of a chunk; of a text, what no other item has."""
    return item.run.digest if isinstance(item.run, Chunk) else item
