"""Five clients, by what they send of the screenshots that they have seen: each from public code, each at every step.

drop     UI-TARS, its agent for OSWorld: the message of an old screenshot goes, the reply to it stays
stub     the Qwen-VL agent for OSWorld: a text takes the place of an old screenshot
shift    the same agent with a short history: older turns go, and the first one that is left gets the instruction and a
         line of text for each that has gone
rewrite  browser-use: one message with the history as a text that is written anew, and the newest screenshot
chunk    Anthropic's computer-use sample: old screenshots go, several at once

Instructions are short, because the pocket model spells most words. Each screenshot has a question beside it, because
that model does nothing but answer questions. UI-TARS and Qwen's agent send none, browser-use the elements of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Screenshots that a client shows. Anthropic's sample drops as many at once.
KEPT = 3
TASK = "Find who is where."
COLLAPSED = "This screenshot has been collapsed."

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Turn:
    """A screenshot as a data URL, the question about it, and the reply; None where it is still to come."""

    url: str
    question: str
    reply: str | None = None


def drop(turns: Sequence[Turn]) -> Messages:
    messages = [_say("system", _text("You are a helpful assistant.")), _say("user", _text(TASK))]
    for age, turn in _by_age(turns):
        if age < KEPT:
            messages.append(_say("user", _image(turn), _text(turn.question)))
        messages += _reply(turn)
    return messages


def stub(turns: Sequence[Turn]) -> Messages:
    messages = [_say("system", _text(TASK))]
    for age, turn in _by_age(turns):
        shown = _image(turn) if age < KEPT else _text(COLLAPSED)
        messages += [_say("user", shown, _text(turn.question)), *_reply(turn)]
    return messages


def shift(turns: Sequence[Turn]) -> Messages:
    gone = turns[:-KEPT]
    done = "\n".join(f"Step {number}: {turn.question} {turn.reply}" for number, turn in enumerate(gone, start=1))
    instruction = _text(f"{TASK}\nPrevious actions:\n{done or 'None'}")
    messages = [_say("system", _text("You are a helpful assistant."))]
    for number, turn in enumerate(turns[-KEPT:]):
        first = [instruction] if number == 0 else []
        messages += [_say("user", _image(turn), *first, _text(turn.question)), *_reply(turn)]
    return messages


def rewrite(turns: Sequence[Turn]) -> Messages:
    *gone, newest = turns
    done = "".join(f"<step_{number}>\n{turn.question} {turn.reply}\n" for number, turn in enumerate(gone, start=1))
    state = f"<agent_history>\n{done}</agent_history>\n<user_request>\n{TASK}\n</user_request>\n{newest.question}"
    return [{"role": "system", "content": "You use a browser."}, _say("user", _text(state), _image(newest))]


def chunk(turns: Sequence[Turn]) -> Messages:
    num_gone = max(len(turns) - KEPT, 0)
    num_gone -= num_gone % KEPT
    messages = [{"role": "system", "content": TASK}]
    for number, turn in enumerate(turns):
        shown = [_image(turn)] if number >= num_gone else []
        messages += [_say("user", _text(turn.question), *shown), *_reply(turn)]
    return messages


CLIENTS: Mapping[str, Callable[[Sequence[Turn]], Messages]] = {
    client.__name__: client for client in (drop, stub, shift, rewrite, chunk)
}


def _by_age(turns: Sequence[Turn]) -> list[tuple[int, Turn]]:
    return [(len(turns) - number, turn) for number, turn in enumerate(turns, start=1)]


def _reply(turn: Turn) -> Messages:
    return [] if turn.reply is None else [_say("assistant", _text(turn.reply))]


def _say(role: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": [*parts]}


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def _image(turn: Turn) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": turn.url}}
