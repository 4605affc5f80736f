"""The forecast of a client's next edit, against the next calls of clients that drop screenshots in their own ways."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise

import pytest

from kamera_agent.turns.forecast import Forecast
from kamera_agent.turns.message import Message, ToolCall

# A screenshot: its number as bytes.
Client = Callable[[Sequence[Message]], list[Message]]


def image(number: int) -> bytes:
    return f"pixels {number}".encode()


def said(number: int) -> Message:
    return Message("assistant", (f"Reply {number}.",))


def seen(number: int) -> Message:
    return Message("user", (f"Step {number}:", image(number), "What now?"))


def called(number: int) -> Message:
    return Message("assistant", (), (ToolCall("click", {"x": number}),))


def returned(number: int) -> Message:
    return Message("tool", ("Done.", image(number)), call_id=f"call {number}")


TASK = [Message("system", ("You see screens.",)), Message("user", ("Find the price.",))]


def history(num_steps: int, *, tools: bool) -> list[Message]:
    """What an agent has seen and said by the call with this number."""
    reply, screen = (called, returned) if tools else (said, seen)
    messages = [*TASK, *([] if tools else [screen(0)])]
    for number in range(1, num_steps):
        messages += [reply(number), screen(number)]
    return messages


def screens(messages: Sequence[Message]) -> list[int]:
    """The messages that hold a screenshot."""
    return [index for index, message in enumerate(messages) if any(isinstance(part, bytes) for part in message.parts)]


def put(message: Message, *stubs: str) -> Message:
    """The message with stubs in the place of its screenshot."""
    place = next(index for index, part in enumerate(message.parts) if isinstance(part, bytes))
    return replace(message, parts=(*message.parts[:place], *stubs, *message.parts[place + 1 :]))


def keep_last(count: int, *stubs: str, first: int = 0) -> Client:
    """Puts stubs, or nothing, in the place of old screenshots. first: how many of the oldest stay as well."""

    def send(messages: Sequence[Message]) -> list[Message]:
        old = screens(messages)[first:-count]
        return [put(message, *stubs) if index in old else message for index, message in enumerate(messages)]

    return send


def numbered(messages: Sequence[Message]) -> list[Message]:
    """The newest two stay, and stubs have numbers."""
    old = screens(messages)[:-2]
    return [
        put(message, f"[screen {old.index(index) + 1} of step {old.index(index)}]") if index in old else message
        for index, message in enumerate(messages)
    ]


def merged(messages: Sequence[Message]) -> list[Message]:
    """The texts of an old message become one, with a stub at the end."""
    old = screens(messages)[:-2]
    return [
        replace(message, parts=(f"{message.parts[0]!s} [gone]", *message.parts[2:])) if index in old else message
        for index, message in enumerate(messages)
    ]


def chunks_of(count: int) -> Client:
    """As Anthropic's sample: at least two stay, and the others go when there are `count` of them."""

    def send(messages: Sequence[Message]) -> list[Message]:
        shown = screens(messages)
        num_old = max(len(shown) - 2, 0)
        old = shown[: num_old - num_old % count]
        return [put(message) if index in old else message for index, message in enumerate(messages)]

    return send


def last_turns(count: int) -> Client:
    """The task and the last turns; older ones go with all their words."""

    def send(messages: Sequence[Message]) -> list[Message]:
        first = len(TASK)
        return [*messages[:first], *messages[max(first, len(messages) - 2 * count + len(messages) % 2) :]]

    return send


CLIENTS: dict[str, tuple[Client, bool]] = {
    "a stub for each": (keep_last(3, "[gone]"), False),
    "two stubs for each": (keep_last(2, "[gone]", "Look again."), False),
    "nothing": (keep_last(3), False),
    "only the current one": (keep_last(1, "[gone]"), False),
    "the first stays": (keep_last(2, "[gone]", first=1), False),
    "results of tools": (keep_last(2, "[gone]"), True),
    "results of tools, nothing": (keep_last(3), True),
    "stubs with numbers": (numbered, False),
    "texts that are merged": (merged, False),
    "four at a time": (chunks_of(4), True),
    "whole turns": (last_turns(3), False),
    "whole turns with calls": (last_turns(3), True),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_next_call_begins_as_foreseen(client: str) -> None:
    """From the second edit on, all of the next call up to its reply."""
    send, tools = CLIENTS[client]
    forecast, num_edits = Forecast(), 0
    calls = [send(history(number, tools=tools)) for number in range(1, 16)]
    for call, after in pairwise(calls):
        foreseen = forecast.next(call)
        begins = after[:-2]
        assert num_edits < 2 or (foreseen or call) == begins
        assert foreseen != call
        num_edits += begins != call
    assert num_edits >= 3


def test_a_client_that_drops_nothing_is_not_foreseen() -> None:
    forecast = Forecast()
    assert [forecast.next(history(number, tools=False)) for number in range(1, 6)] == [None] * 5


def test_what_cannot_be_known_is_not_foreseen() -> None:
    """The only screenshot is replaced by the next one, beside a text that is rewritten."""
    forecast = Forecast()
    for number in range(5):
        call = [*TASK, Message("user", (image(number), f"You have done {'this and ' * number}that."))]
        assert forecast.next(call) is None


def test_replies_keep_what_they_were_said_as() -> None:
    """Messages that do not change are the same objects."""
    forecast, send = Forecast(), keep_last(2, "[gone]")
    for number in range(1, 8):
        call = send(history(number, tools=False))
        foreseen = forecast.next(call)
    assert foreseen
    assert sum(ours is theirs for ours, theirs in zip(foreseen, call, strict=True)) == len(call) - 1


def test_unlike_histories_are_not_compared_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated texts between texts that all differ: the comparison would take the third power of their number."""
    compared: list[int] = []

    def comparison(_: None, old: Sequence[int], new: Sequence[int], autojunk: bool) -> SequenceMatcher[int]:
        compared.append(len(old) * len(new))
        return SequenceMatcher(None, old, new, autojunk=autojunk)

    monkeypatch.setattr("kamera_agent.turns.forecast.SequenceMatcher", comparison)
    for num_texts in (40, 4000):
        forecast = Forecast()
        for name in "abc":
            texts = [text for number in range(num_texts) for text in ("again", f"{name} {number}")]
            assert forecast.next([Message("user", (*texts, name))]) is None
    # From nothing to the first one, and from each to the next; of the long ones, nothing else.
    assert compared == [0, 80 * 80, 80 * 80, 0]


@pytest.mark.parametrize("size", [2, 12_000])
def test_long_rows_are_found_among_those_that_are_nearly_as_long(size: int) -> None:
    """A client takes out the first of its longer rows, an image with all texts before it."""

    def shown(*rows: int) -> Message:
        """Eight shorter rows, and longer ones of these numbers."""
        sizes = {**dict.fromkeys(range(8), size - 1), **dict.fromkeys(rows, size)}
        texts = {number: [f"{number} {place}" for place in range(count)] for number, count in sizes.items()}
        return Message("user", tuple(part for number in sizes for part in (*texts[number], image(number))))

    forecast = Forecast()
    assert forecast.next([shown(8, 9)]) is None
    assert forecast.next([shown(9), said(1), seen(10)]) == [shown(), said(1), seen(10)]


@pytest.mark.parametrize("digits", ["7", "1" * 30, "1" * 10_000, "٣"])
def test_stubs_with_any_digits(digits: str) -> None:
    forecast = Forecast()
    foreseen = None
    for number in range(1, 9):
        call = keep_last(2, f"[{digits} of {number}]")(history(number, tools=False))
        foreseen = forecast.next(call)
    assert foreseen
