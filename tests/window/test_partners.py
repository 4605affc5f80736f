"""KV in the pool for each place, against the rules spelt out one place after another."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from random import Random

import numpy as np
import torch

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import Chunk, Key, TextRun
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.window.evidence import Stale
from kamera_agent.window.layout import Item, Place
from kamera_agent.window.partners import find_partners
from kamera_agent.window.resident import Resident

ANCHOR = Item("anchor", "anchor", "system", TextRun((0,)))
NOTHING = np.empty((0, 0, 3), dtype=np.uint8)


def picture(number: int) -> Chunk:
    return Chunk(Key.of(number=number), "image", (7, 8), torch.arange(2)[None], 2, NOTHING)


# Two items of each content, so that equal ones meet.
RUNS = [*(TextRun((number,)) for number in (1, 2)), *map(picture, (1, 2))]
ITEMS = [Item(f"item{number}", "text", "user", RUNS[number % len(RUNS)]) for number in range(2 * len(RUNS))]


def lay(items: Sequence[Item]) -> list[Place]:
    places = [Place(ANCHOR, 0, 0, Antecedents())]
    for item in items:
        places.append(places[-1].next(item))
    return places


def by_the_rules(
    places: Sequence[Place], residents: Sequence[Resident], spares: Sequence[Resident]
) -> list[Resident | None]:
    partners: dict[int, Resident] = {}

    def digest(there: Place) -> bytes:
        return there.item.run.digest

    def is_exact(resident: Resident, place: Place) -> bool:
        return resident.seen.exact and resident.seen.chain == place.before.chain

    def free() -> list[Resident]:
        return [one for one in (*residents, *spares) if not any(one is taken for taken in partners.values())]

    num_same = 0
    while num_same < min(len(places), len(residents)) and digest(places[num_same]) == digest(residents[num_same].place):
        num_same += 1
    rules = [
        lambda index, place, one: index < num_same and one is residents[index] and is_exact(one, place),
        lambda index, place, one: digest(one.place) == digest(place) and is_exact(one, place),
        lambda index, place, one: index < num_same and one is residents[index],
        lambda index, place, one: (one.place.item.id, digest(one.place)) == (place.item.id, digest(place)),
        lambda index, place, one: isinstance(place.item.run, Chunk) and digest(one.place) == digest(place),
    ]
    for rule in rules:
        for index, place in enumerate(places):
            if index not in partners:
                found = next((one for one in free() if rule(index, place, one)), None)
                partners |= {index: found} if found else {}
    return [partners.get(index) for index in range(len(places))]


def resident(place: Place, lays: Sequence[Sequence[Place]], random: Random) -> Resident:
    """KV of a place that was computed there, or in the place of an equal item in one of several windows."""
    equal = [one.before for one in chain.from_iterable(lays) if one.item.run.digest == place.item.run.digest]
    seen = replace(random.choice([*[place.before] * 3, *equal]), exact=random.random() < 0.8)
    exact = seen.exact and seen.chain == place.before.chain
    return Resident(place, Slots(), seen, "kept", exact, None if exact else Stale())


def test_random_windows() -> None:
    """Residents of one window, some of them computed in others, and spares; the next window is an edit or another."""
    random = Random(0)

    def draw() -> list[Item]:
        return random.sample(ITEMS, random.randrange(len(ITEMS)))

    for _ in range(3000):
        window = draw()
        after = [*window[: random.randrange(len(window) + 1)], *draw()]
        after = list(dict.fromkeys(after)) if random.random() < 0.8 else draw()
        lays = [lay(items) for items in (window, after, draw())]

        residents = [resident(place, lays, random) for place in lays[0]]
        spares = [resident(place, lays, random) for place in random.choice(lays)] if random.random() < 0.5 else []
        found, expected = (way(lays[1], residents, spares) for way in (find_partners, by_the_rules))
        assert all(one is other for one, other in zip(found, expected, strict=True))
