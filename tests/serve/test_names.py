"""The names of conversations."""

import pytest

from kamera_agent.serve.client import Client, place_of
from kamera_agent.turns.message import Message

LONG = "a" * 1_000_000
ASKED = Message("user", (LONG,))


@pytest.mark.parametrize("thread", ["one", LONG, f"{LONG}\ud83d", "digest 00", None])
def test_a_name_is_short_whatever_a_client_sends(thread: str | None) -> None:
    place = place_of(Client("ns", thread), [ASKED])
    assert len(place.conversation) <= 128
    assert place == place_of(Client("ns", thread), [ASKED])
    assert place != place_of(Client("other", thread), [ASKED])


def test_other_names_are_other_conversations() -> None:
    names = ["one", LONG, f"{LONG}a", f"{LONG[:-1]}b", f"b{LONG[1:]}", None]
    long = place_of(Client(None, LONG), []).conversation
    places = {place_of(Client(None, name), [ASKED]) for name in [*names, long, f"thread {long}"]}
    assert len(places) == len(names) + 2
