"""Questions and answers, compared with a second solver that reads the cells of the pictures."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from kamera_agent.pocket.screen import Picture, Screen, Shot
from kamera_agent.pocket.style import LOOKS
from kamera_agent.pocket.tasks import TASKS, Question, ask
from kamera_agent.pocket.words import COUNTS
from kamera_agent.pocket.world import STORIES, World, is_held_out


def cards(window: list[Picture], kind: str) -> list[dict[str, str]]:
    return [
        {cell.first: cell.second for cell in picture.cells() if cell.second}
        for picture in window
        if isinstance(picture, Screen) and picture.kind == kind
    ]


def repriced(window: list[Picture]) -> set[str]:
    """Items of which two screens show different prices."""
    return {
        item
        for before, after in combinations(cards(window, "prices"), 2)
        for item in before
        if after[item] != before[item]
    }


def expected(question: Question, window: list[Picture]) -> set[str]:
    """Every answer that the cells allow."""
    words = question.text.rstrip("?").split()
    shots = [picture for picture in window if isinstance(picture, Shot)]
    match words:
        case ["What", "does", "the", item, "cost"]:
            return {table[item] for table in cards(window, "prices") if item in table}
        case ["Who", "owns", "the", item]:
            return {table[item] for table in cards(window, "owners") if item in table}
        case ["Which", "key", "opens", "the", room]:
            return {table[room] for table in cards(window, "keys") if room in table}
        case ["Where", "is", shape, "now"] | ["Where", "is", "the", shape, "now"]:
            return {cell.third for cell in shots[-1].cells() if cell.first == shape}
        case ["Where", "is", "the", "owner", "of", "the", item]:
            return {rooms[owners[item]] for owners in cards(window, "owners") for rooms in cards(window, "rooms")}
        case ["Where", "is", person]:
            return {table[person] for table in cards(window, "rooms") if person in table}
        case ["Which", "screen", "shows", word]:
            screens = [picture for picture in window if isinstance(picture, Screen)]
            return {screen.title for screen in screens for cell in screen.cells() if word in (cell.first, cell.second)}
        case ["Which", "price", "changed"]:
            return repriced(window)
        case ["How", "many", "prices", "changed"]:
            return {COUNTS[len(repriced(window))]}
        case ["Which", "key", "does", person, "need"]:
            return {keys[rooms[person]] for rooms in cards(window, "rooms") for keys in cards(window, "keys")}
        case ["Which", "key", "does", "the", "owner", "of", "the", item, "need"]:
            tables = product(*(cards(window, kind) for kind in ("owners", "rooms", "keys")))
            return {keys[rooms[owners[item]]] for owners, rooms, keys in tables}
        case ["How", "often", "did", "the", shape, "change"]:
            return {COUNTS[len({c.second for shot in shots for c in shot.cells() if c.first == shape}) - 1]}
    raise AssertionError(f"an unknown question: {question.text}")


@pytest.mark.parametrize("seed", range(10))
def test_answers_are_right_and_the_only_ones(seed: int) -> None:
    world = World(np.random.default_rng(seed))
    for story in STORIES:
        window = world.window(story, 4)
        for question in ask(window):
            assert expected(question, window) == {question.answer}, question


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_pictures", [2, 7, 12])
def test_the_answers_of_a_day_are_right_and_the_only_ones(seed: int, num_pictures: int) -> None:
    window = World(np.random.default_rng(seed)).window("day", num_pictures)
    assert len(window) == num_pictures
    for question in ask(window):
        assert expected(question, window) == {question.answer}, question


def test_a_page_of_a_day_is_seen_again_with_a_few_cells_changed() -> None:
    """Of many days, some have a page of prices twice in the same places, up to three of its cells differing."""
    differing = set()
    for seed in range(60):
        window = World(np.random.default_rng(seed)).window("day", 6)
        prices = [page for page in window if isinstance(page, Screen) and page.kind == "prices"]
        for before, after in combinations(prices, 2):
            if before.title == after.title and before.columns == after.columns:
                differing.add(sum(old != new for old, new in zip(before.cells(), after.cells(), strict=True)))
    assert differing == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(10))
def test_an_answer_needs_no_other_pictures_than_it_says(seed: int) -> None:
    """A window of the needed pictures alone gives the same answer."""
    world = World(np.random.default_rng(seed))
    for story in STORIES:
        window = world.window(story, 4)
        for question in ask(window):
            needed = [window[index] for index in question.needs]
            assert expected(question, needed) == {question.answer}, question


def test_every_task_is_asked() -> None:
    world = World(np.random.default_rng(0))
    asked = Counter(question.task for story in STORIES for _ in range(20) for question in ask(world.window(story, 4)))
    assert set(asked) == set(TASKS)


def test_the_same_seed_tells_the_same() -> None:
    first, second = (World(np.random.default_rng(9)).window("both", 4) for _ in range(2))
    assert first == second


def test_training_never_shows_a_held_out_pair() -> None:
    world = World(np.random.default_rng(3), looks=LOOKS["train"])
    shown = [
        card
        for story in ("changes", "links")
        for _ in range(40)
        for screen in world.window(story, 4)
        if isinstance(screen, Screen)
        for card in screen.cards
    ]
    assert len(shown) > 1000
    assert not [card for card in shown if is_held_out(card.label, card.value)]
