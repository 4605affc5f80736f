"""The targets of gazes, worked out by hand for windows of a few cards."""

from kamera_agent.pocket.screen import Card, Screen, Shift
from kamera_agent.pocket.style import LOOKS, Style
from kamera_agent.pocket.tasks import Question
from training.gaze import SINK, Gaze, Sight, focus, holders, look_around
from training.relations import relate

MIDDLE = Shift(0, 0)
STYLE = Style(LOOKS["train"].fonts[0], LOOKS["train"].themes[0], 12, 15, 95)


def screen(kind: str, title: str, **table: str) -> Screen:
    cards = tuple(Card(label, value, 4 + cell, MIDDLE) for cell, (label, value) in enumerate(table.items()))
    return Screen(kind, title, MIDDLE, 4, 3, cards, STYLE)


OWNERS = screen("owners", "jan", lamp="anna", desk="ben")
ROOMS = screen("rooms", "feb", anna="attic", carl="hall")
KEYS = screen("keys", "mar", attic="17", gym="23")
BEFORE = screen("prices", "apr", lamp="10", desk="20", boat="30")
AFTER = screen("prices", "may", lamp="10", desk="21", tent="30")


def place(picture: int, cell: int) -> int:
    return 100 * (picture + 1) + cell


def see(*window: Screen) -> list[Sight]:
    return [
        Sight(number, place(number, cell), relations, window[number].cells()[cell])
        for number, known in enumerate(relate(window))
        for cell, relations in known.items()
    ]


def looks(*window: Screen) -> dict[Gaze, dict[int, list[int]]]:
    return {gaze: dict(targets) for gaze, targets in look_around(window, see(*window)).items()}


def test_a_card_looks_for_its_label_in_earlier_screens_of_its_kind() -> None:
    same = looks(BEFORE, AFTER)["same"]
    # lamp, desk and boat have nothing before them; lamp and desk are shown again, tent is new.
    assert same == {
        **{place(0, cell): [SINK] for cell in (4, 5, 6)},
        place(1, 4): [place(0, 4)],
        place(1, 5): [place(0, 5)],
        place(1, 6): [SINK],
    }


def test_a_card_looks_one_and_two_joins_on() -> None:
    """Keys, rooms, owners: anna's lamp leads to her room, the attic, and that to its key."""
    gazes = looks(KEYS, ROOMS, OWNERS)
    assert gazes["target"][place(2, 4)] == [place(1, 4)]
    assert gazes["end"][place(2, 4)] == [place(0, 4)]
    # Ben has no room in this window.
    assert gazes["target"][place(2, 5)] == gazes["end"][place(2, 5)] == [SINK]


def test_a_card_looks_one_and_two_joins_back_in_any_order() -> None:
    """Rooms, owners, keys: the key of the attic leads back to anna in the rooms, and to her lamp in the owners."""
    gazes = looks(ROOMS, OWNERS, KEYS)
    assert gazes["source"][place(2, 4)] == [place(0, 4)]
    assert gazes["root"][place(2, 4)] == [place(1, 4)]
    assert gazes["source"][place(2, 5)] == gazes["root"][place(2, 5)] == [SINK]


def test_every_cell_looks_at_its_title() -> None:
    assert looks(OWNERS, ROOMS)["title"] == {
        place(number, cell): [place(number, 0)] for number in (0, 1) for cell in (0, 4, 5)
    }


def test_an_answer_looks_at_the_cells_that_hold_it() -> None:
    joined = Question("join3", "Which key does the owner of the lamp need?", "17", (0, 1, 2), "lamp")
    for window, number in (((KEYS, ROOMS, OWNERS), 2), ((ROOMS, OWNERS, KEYS), 2), ((OWNERS, KEYS, ROOMS), 2)):
        assert focus(joined, window, see(*window)) == [place(number, 4)]
    changed = Question("diff", "Which price changed?", "desk", (0, 1))
    assert focus(changed, (BEFORE, AFTER), see(BEFORE, AFTER)) == [place(1, 5)]


def test_a_count_looks_at_the_sink_beside_what_it_counts() -> None:
    count = Question("count", "How many prices changed?", "one", (0, 1))
    assert focus(count, (BEFORE, AFTER), see(BEFORE, AFTER)) == [place(1, 5), SINK]


def test_find_looks_at_values_too() -> None:
    question = Question("find", "Which screen shows anna?", "jan", (0,), "anna")
    assert holders(question, see(OWNERS, KEYS)) == [place(0, 4)]
    assert holders(question, see(KEYS)) == [SINK]
