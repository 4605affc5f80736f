"""Tasks: questions about a window of pictures, with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kamera_agent.pocket.screen import Picture, Screen, Shot
from kamera_agent.pocket.words import COUNTS

Task = Literal["read", "find", "diff", "count", "join2", "join3", "track"]
TASKS: tuple[Task, ...] = get_args(Task)

# Tasks whose answers depend on more than one picture, so on what the KV of a chunk knows of other chunks.
BINDING: tuple[Task, ...] = ("diff", "count", "join2", "join3", "track")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a window.

    needs: indices of the pictures that the answer depends on, in order. subject: the word that the question is about.
    """

    task: Task
    text: str
    answer: str
    needs: tuple[int, ...]
    subject: str = ""


def ask(window: Sequence[Picture]) -> list[Question]:
    """Every question of every task that has exactly one answer in the window."""
    screens = {index: picture for index, picture in enumerate(window) if isinstance(picture, Screen)}
    shots = {index: picture for index, picture in enumerate(window) if isinstance(picture, Shot)}
    return [*_read(screens), *_find(screens), *_changes(screens), *_joins(screens), *_track(shots)]


READ = {
    "prices": "What does the {} cost?",
    "owners": "Who owns the {}?",
    "rooms": "Where is {}?",
    "keys": "Which key opens the {}?",
}
# (kind, kind, question): the values of the first kind are labels of the second.
JOINS = (
    ("owners", "rooms", "Where is the owner of the {}?"),
    ("rooms", "keys", "Which key does {} need?"),
)


def _read(screens: dict[int, Screen]) -> list[Question]:
    questions = []
    for kind, text in READ.items():
        shown: dict[str, dict[str, int]] = {}
        for index, screen in _of_kind(screens, kind):
            for card in screen.cards:
                shown.setdefault(card.label, {})[card.value] = index
        for label, values in shown.items():
            # A label with two values has no single answer.
            if len(values) == 1:
                ((value, index),) = values.items()
                questions.append(Question("read", text.format(label), value, (index,), label))
    return questions


def _find(screens: dict[int, Screen]) -> list[Question]:
    places: dict[str, set[int]] = {}
    for index, screen in screens.items():
        for card in screen.cards:
            for word in (card.label, card.value):
                places.setdefault(word, set()).add(index)
    return [
        Question("find", f"Which screen shows {word}?", screens[index].title, (index,), word)
        for word, (index, *others) in ((word, tuple(indices)) for word, indices in places.items())
        if not others
    ]


def _changes(screens: dict[int, Screen]) -> list[Question]:
    prices = _of_kind(screens, "prices")
    if len(prices) < 2:
        return []
    shown: dict[str, set[str]] = {}
    for _, screen in prices:
        for card in screen.cards:
            shown.setdefault(card.label, set()).add(card.value)
    changed = [label for label, values in shown.items() if len(values) > 1]
    needs = tuple(index for index, _ in prices)
    questions = [Question("count", "How many prices changed?", COUNTS[len(changed)], needs)]
    if len(changed) == 1:
        questions.append(Question("diff", "Which price changed?", changed[0], needs))
    return questions


def _joins(screens: dict[int, Screen]) -> list[Question]:
    tables = {kind: (index, _table(screen)) for kind in READ for index, screen in _of_kind(screens, kind)}
    questions = []
    for start, end, text in JOINS:
        if start in tables and end in tables:
            (a, labels), (b, values) = tables[start], tables[end]
            for label, link in labels.items():
                if link in values:
                    needs = tuple(sorted((a, b)))
                    questions.append(Question("join2", text.format(label), values[link], needs, label))
    if {"owners", "rooms", "keys"} <= tables.keys():
        (a, owners), (b, rooms), (c, keys) = tables["owners"], tables["rooms"], tables["keys"]
        for item, person in owners.items():
            if (room := rooms.get(person, "")) in keys:
                text = f"Which key does the owner of the {item} need?"
                questions.append(Question("join3", text, keys[room], tuple(sorted((a, b, c))), item))
    return questions


def _track(shots: dict[int, Shot]) -> list[Question]:
    """Questions about marked objects. "Now" is the last shot of the window."""
    if not shots:
        return []
    questions = []
    last = max(shots)
    for mark in shots[last].marks:
        # An object never returns to a colour, so it changed once less often than it has colours.
        colours = {other.colour for shot in shots.values() for other in shot.marks if other.shape == mark.shape}
        zone = shots[last].zones[mark.cell]
        questions.append(Question("track", f"Where is the {mark.shape} now?", zone, (last,), mark.shape))
        if len(shots) > 1:
            text = f"How often did the {mark.shape} change?"
            questions.append(Question("track", text, COUNTS[len(colours) - 1], tuple(sorted(shots)), mark.shape))
    return questions


def _of_kind(screens: dict[int, Screen], kind: str) -> list[tuple[int, Screen]]:
    return [(index, screen) for index, screen in screens.items() if screen.kind == kind]


def _table(screen: Screen) -> dict[str, str]:
    return {card.label: card.value for card in screen.cards}
