"""The conversations that are kept for requests that go on from one, and their bound."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from kamera_agent.serve.errors import Refused
from kamera_agent.serve.responses import kept as module
from kamera_agent.serve.responses.kept import Kept
from kamera_agent.serve.sent import CallForm, Sent

BOUND = 100_000
REPLY = Sent("assistant", ("ok",))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(module, "MAX_BYTES", BOUND)
    return Kept()


def image(num_bytes: int) -> Sent:
    return Sent("user", (bytes(num_bytes),))


def calling(num_bytes: int) -> Sent:
    return Sent("assistant", (), (CallForm("go", "x" * num_bytes),))


def found(kept: Kept) -> dict[str, tuple[Sent, ...]]:
    """The conversations that are still there, of a hundred."""
    there = {}
    for number in range(100):
        with suppress(Refused):
            there[f"{number}"] = kept.find("ns", f"{number}")
    return there


def num_held(kept: Kept) -> int:
    """Bytes of all images and arguments that are held, each once."""
    messages = {id(sent): sent for conversation in found(kept).values() for sent in conversation}.values()
    images = sum(len(part) for sent in messages for part in sent.parts)
    return images + sum(len(call.arguments) for sent in messages for call in sent.calls)


@pytest.mark.parametrize("make", [image, calling])
def test_conversations_that_go_on(kept: Kept, make: Callable[[int], Sent]) -> None:
    """Each holds all that is before it. The bound holds for what is held."""
    before: tuple[Sent, ...] = ()
    for number in range(15):
        kept.keep("ns", f"{number}", before, (make(9_000), REPLY))
        assert num_held(kept) <= BOUND
        if number < 10:
            before = kept.find("ns", f"{number}")
            assert len(before) == 2 * (number + 1)
    # With an eleventh, they would be above the bound.
    assert [*found(kept)] == [f"{number}" for number in range(10)]


def test_shared_messages_count_once(kept: Kept) -> None:
    kept.keep("ns", "0", (), (image(80_000), REPLY))
    before = kept.find("ns", "0")
    for number in range(1, 20):
        kept.keep("ns", f"{number}", before, (REPLY,))
    assert len(found(kept)) == 20
    kept.keep("ns", "20", (), (image(80_000), REPLY))
    assert [*found(kept)] == ["20"]
    kept.keep("ns", "21", (), (image(10_000), REPLY))
    assert [*found(kept)] == ["20", "21"]


def test_a_conversation_above_the_bound_is_not_kept(kept: Kept) -> None:
    """It pushes no other one out."""
    kept.keep("ns", "0", (), (image(10_000), REPLY))
    kept.keep("ns", "1", (), (image(60_000), image(60_000)))
    assert [*found(kept)] == ["0"]


def test_many_short_messages_count_as_what_they_take(kept: Kept) -> None:
    for number in range(40):
        kept.keep("ns", f"{number}", (), tuple(Sent("user", (f"{number} {index}",)) for index in range(100)))
    assert len(found(kept)) < 20
