"""What the server knows of a reply that comes back."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamera_agent.serve import said
from kamera_agent.serve.client import Place
from kamera_agent.serve.said import Said, _shown
from kamera_agent.serve.sent import CallForm, Sent

PIECES = ["<think>", "</think>", "a", "b ", "<think", "think>"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_text_without_its_reasoning(text: str) -> None:
    """As a pattern takes it out; what is before a closing alone is reasoning that began in the prompt."""
    assert _shown(text) == re.sub("<think>.*?</think>", "", text, flags=re.DOTALL).rpartition("</think>")[2]


@pytest.mark.parametrize("text", ["<think>", "</think>", "<think></think>", "a<think>b"])
def test_a_long_text_takes_no_time(text: str) -> None:
    """A pattern with two ends, which goes on from each opening to the end of the text, would take hours."""
    assert len(_shown(text * 1_000_000)) <= 10 * 1_000_000


PLACE = Place(None, "one")
ASKED = Sent("user", ("Go on.",))


def replied(thought: str, shown: str = "Done.", calls: tuple[CallForm, ...] = ()) -> Sent:
    return Sent("assistant", (f"<think>{thought}</think>{shown}",), calls)


def cut(reply: Sent, **fields: Any) -> Sent:
    """A reply as a client sends it back that shows no reasoning."""
    return reply._replace(parts=(reply.text.rpartition("</think>")[2],), **fields)


def screen(number: int) -> Sent:
    return Sent("tool", (f"screen {number}".encode(),))


class Model:
    """Replies that a server remembers, and those that it knows in a request."""

    def __init__(self) -> None:
        self._said = Said()

    def reply(self, messages: list[Sent], reply: Sent) -> None:
        self._said.note(PLACE, messages, reply, reply.message)

    def knows(self, *messages: Sent) -> list[str | None]:
        """Of the replies of a request, the texts of those that are known."""
        found = self._said.find(PLACE, messages)
        assert all(one is None for one, sent in zip(found, messages, strict=True) if sent.role != "assistant")
        replies = [one for one, sent in zip(found, messages, strict=True) if sent.role == "assistant"]
        return [one.text if one else None for one in replies]


@pytest.fixture
def model() -> Model:
    return Model()


FIRST, SECOND, THIRD = replied("First."), replied("Second."), replied("Third.")


def test_replies_that_look_alike(model: Model) -> None:
    """Each has its own reasoning: in one conversation, and where screenshots have gone."""
    messages = [ASKED]
    for number, reply in enumerate((FIRST, SECOND, THIRD)):
        model.reply(messages, reply)
        messages += [cut(reply), screen(number)]
    texts = [FIRST.text, SECOND.text, THIRD.text]
    assert model.knows(*messages) == texts
    gone = [Sent("tool", ("[gone]",)) if sent.role == "tool" else sent for sent in messages]
    assert model.knows(*gone) == texts
    # Without the first turn, nobody can tell.
    assert model.knows(ASKED, *messages[3:]) == [None, None]


def test_replies_that_look_alike_after_other_screens(model: Model) -> None:
    """Two clients that begin alike, and take turns."""
    model.reply([ASKED, screen(1)], FIRST)
    model.reply([ASKED, screen(2)], SECOND)
    assert model.knows(ASKED, screen(2), cut(SECOND)) == [SECOND.text]
    assert model.knows(ASKED, screen(1), cut(FIRST)) == [FIRST.text]
    assert model.knows(ASKED, screen(3), cut(FIRST)) == [None]


def test_two_replies_to_the_same_messages(model: Model) -> None:
    """Nothing shows which one has come back; a reply that has its reasoning is that reply."""
    model.reply([ASKED], FIRST)
    model.reply([ASKED], SECOND)
    model.reply([ASKED], SECOND)
    assert model.knows(ASKED, cut(FIRST)) == [None]
    assert model.knows(ASKED, FIRST) == [FIRST.text]
    assert model.knows(ASKED, SECOND) == [SECOND.text]
    assert model.knows(ASKED, SECOND._replace(parts=(f"\n{SECOND.text} ",))) == [SECOND.text]


def test_calls_that_look_alike_have_ids(model: Model) -> None:
    calls = {thought: CallForm("look", '{"at": 1}', f"call_{thought}") for thought in ("one", "two")}
    for thought, call in calls.items():
        model.reply([ASKED], replied(thought, "", (call,)))
    for thought, call in calls.items():
        sent = cut(replied(thought, "", (call._replace(arguments='{"at":1}'),)))
        assert model.knows(screen(1), sent, screen(2)) == [f"<think>{thought}</think>"]
        for other in (None, 5, "call_three"):
            assert model.knows(ASKED, sent._replace(calls=(call._replace(id=other),))) == [None]


def test_the_words_of_a_client_stay(model: Model) -> None:
    """An example, or reasoning of its own, is not taken for a reply."""
    example = Sent("assistant", ("Done.",))
    model.reply([ASKED, example, ASKED], FIRST)
    assert model.knows(ASKED, example, ASKED, cut(FIRST)) == [None, FIRST.text]
    assert model.knows(ASKED, example, ASKED, FIRST) == [None, FIRST.text]
    assert model.knows(ASKED, SECOND) == [None]


def test_a_reply_that_shows_all_of_it(model: Model) -> None:
    """It is known in whatever conversation, because it has no other words."""
    reply = Sent("assistant", (' {"a": 1}',))
    model.reply([ASKED], reply)
    assert model.knows(screen(1), reply, screen(2), Sent("assistant", ('{"a":1}',))) == [reply.text, reply.text]


def test_no_more_replies_than_have_room(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those go first that have not come back for the longest time."""
    monkeypatch.setattr(said, "MAX_REPLIES", 2)
    replies = [Sent("assistant", (word,)) for word in ("one", "two", "three")]
    for reply in replies[:2]:
        model.reply([ASKED], reply)
    assert model.knows(ASKED, replies[0]) == ["one"]
    model.reply([ASKED], replies[2])
    assert [model.knows(ASKED, reply)[0] for reply in replies] == ["one", None, "three"]
