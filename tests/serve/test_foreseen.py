"""Clients that drop old screenshots at every step: the next drop is foreseen, and computed ahead."""

from collections.abc import Callable
from typing import Any

import pytest
from serving import cached, client_of, serving, shown, text, user

from kamera_agent import Kamera

STEPS = 12
# Tokens of a new message: a screen, its text, and the markup around both.
NEW = 75
Messages = list[dict[str, Any]]


def screens(history: Messages) -> list[int]:
    return [index for index, message in enumerate(history) if message["role"] == "user" and len(message["content"]) > 1]


def with_stubs(history: Messages) -> Messages:
    """Two screens stay; a text takes the place of the others."""
    old = screens(history)[:-2]
    return [user(text("Now:"), text("[gone]")) if index in old else message for index, message in enumerate(history)]


def without_stubs(history: Messages) -> Messages:
    """Three screens stay; nothing takes the place of the others."""
    old = screens(history)[:-3]
    return [user(text("Now:")) if index in old else message for index, message in enumerate(history)]


def last_turns(history: Messages) -> Messages:
    """The task and the last three turns stay."""
    return [*history[:2], *history[2:][-5:]]


@pytest.mark.parametrize("drop", [with_stubs, without_stubs, last_turns])
def test_a_drop_that_is_foreseen_costs_nothing(drop: Callable[[Messages], Messages]) -> None:
    """Once it has been seen, a step computes what is new in it; without a forecast it computes more."""
    foreseen, others = replay(drop, "ahead"), replay(drop, "idle")
    assert max(foreseen[6:]) <= NEW
    assert sum(foreseen[6:]) < 0.75 * sum(others[6:])


def replay(drop: Callable[[Messages], Messages], heal: Any) -> list[int]:
    """The computed tokens of each step, with time enough between two steps."""
    history: Messages = [{"role": "system", "content": "You see screens."}, user(text("Say where anna is."))]
    computed = []
    with Kamera.pocket(heal=heal) as kamera, serving(kamera) as url, client_of(url) as client:
        for seed in range(STEPS):
            history.append(user(text("Now:"), shown(seed)))
            messages: Any = drop(history)
            reply = client.chat.completions.create(model="pocket", messages=messages, max_tokens=4)
            assert reply.usage
            computed.append(reply.usage.prompt_tokens - cached(reply))
            history.append({"role": "assistant", "content": reply.choices[0].message.content})
            kamera.settle()
    return computed
