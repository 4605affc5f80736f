"""Questions and answers, compared with a second solver that reads the cells of the pictures."""

from collections import Counter

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
            (owners,), (rooms,) = cards(window, "owners"), cards(window, "rooms")
            return {rooms[owners[item]]}
        case ["Where", "is", person]:
            return {table[person] for table in cards(window, "rooms") if person in table}
        case ["Which", "screen", "shows", word]:
            screens = [picture for picture in window if isinstance(picture, Screen)]
            return {screen.title for screen in screens for cell in screen.cells() if word in (cell.first, cell.second)}
        case ["Which", "price", "changed"]:
            before, after = cards(window, "prices")
            return {item for item in before if after[item] != before[item]}
        case ["How", "many", "prices", "changed"]:
            before, after = cards(window, "prices")
            return {COUNTS[sum(after[item] != before[item] for item in before)]}
        case ["Which", "key", "does", person, "need"]:
            (rooms,), (keys,) = cards(window, "rooms"), cards(window, "keys")
            return {keys[rooms[person]]}
        case ["Which", "key", "does", "the", "owner", "of", "the", item, "need"]:
            (owners,), (rooms,), (keys,) = (cards(window, kind) for kind in ("owners", "rooms", "keys"))
            return {keys[rooms[owners[item]]]}
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
