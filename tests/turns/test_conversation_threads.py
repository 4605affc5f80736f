"""Conversations that several threads edit, branch, leave and cancel at random."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO

import pytest
from models import screenshot
from PIL import Image

from kamera_agent import Kamera
from kamera_agent.turns.chat import Chat, Limits, Request
from kamera_agent.turns.conversations import MAX_WINDOWS
from kamera_agent.turns.documents import LONG
from kamera_agent.turns.message import Message
from kamera_agent.turns.transcript import transcribe

MAX_CONVERSATIONS = 3
MAX_TOKENS = 4
TIMEOUT = 600
QUESTIONS = ("Where is anna?", "And ben?", "What is in the attic?", "Is that right?")
SYSTEMS = ("You are asked about screens. " * 4, "Judge the answer. " * 3)
CLEARED = Message("user", ("[cleared]",))


def screen(seed: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(screenshot(seed, 28, 28)).save(buffer, "PNG")
    return buffer.getvalue()


# What a thread may add before a question: screens, long pages and short ones, which come again and again.
SEEN = [
    *(Message("user", (screen(seed), "A screen.")) for seed in range(4)),
    *(Message("user", (f"Page {number}. " + "The page has many words. " * (LONG // 24),)) for number in range(3)),
    Message("user", ("A short page.",)),
]


@pytest.fixture(scope="module")
def exact() -> Iterator[Kamera]:
    """Every reply is that of a window that was computed whole."""
    with Kamera.pocket(fidelity="exact") as kamera:
        yield kamera


def expected(kamera: Kamera, messages: list[Message]) -> str:
    transcript = transcribe(kamera.family, messages)
    window = kamera.window(transcript.system)
    window.sync(transcript.contents)
    return window.generate(max_tokens=MAX_TOKENS).text


class Speaker:
    """One thread. It speaks in a conversation of its own and in one that all share."""

    def __init__(self, chat: Chat, seed: int) -> None:
        self._chat, self._kamera, self._rng = chat, chat.open().kamera, random.Random(seed)
        self._own = f"own {seed}"
        self._histories: dict[str, list[Message]] = {"shared": [], self._own: []}

    def speak(self, num_turns: int) -> int:
        """Take turns; returns how many replies were compared."""
        return sum(self._turn() for _ in range(num_turns))

    def _turn(self) -> bool:
        rng = self._rng
        conversation = rng.choice(["shared", self._own])
        history = self._histories[conversation]
        self._edit(history)
        history.append(Message("user", (rng.choice(QUESTIONS),)))
        agent = rng.randrange(2)
        messages = [Message("system", (SYSTEMS[agent],)), *history]
        request = Request(messages, conversation, str(agent), max_tokens=MAX_TOKENS)
        way = rng.choice(["whole", "whole", "whole", "leave", "cancel"])
        cancelled = threading.Event()
        with suppress(GeneratorExit), self._chat.answer(request, cancelled.is_set) as stream:
            if way == "whole":
                text = stream.finish().text
                if is_exact := self._kamera.settings.fidelity == "exact":
                    assert text == expected(self._kamera, messages), [message.text for message in messages]
                history.append(Message("assistant", (text,) if text else ()))
                return is_exact
            next(stream, None)
            if way == "cancel":
                cancelled.set()
                stream.finish()
        history.pop()
        return False

    def _edit(self, history: list[Message]) -> None:
        """Go back to an earlier state, clear or restore something, or add something."""
        rng = self._rng
        if len(history) > 10 or rng.random() < 0.2:
            del history[2 * rng.randrange(2) :]
        places = [place for place, message in enumerate(history) if message in SEEN or message == CLEARED]
        if places and rng.random() < 0.5:
            place = rng.choice(places)
            history[place] = CLEARED if history[place] != CLEARED else rng.choice(SEEN)
        if rng.random() < 0.6:
            history.append(rng.choice(SEEN))


def run(kamera: Kamera, *, num_threads: int, num_turns: int, seed: int) -> None:
    """1. Every whole reply is that of a new window, where nothing but exact KV is used.

    2. Windows stay within their bounds, and their pools whole. Nothing hangs or fails.
    """
    with Chat(kamera, None, {}, Limits(MAX_CONVERSATIONS, 1 << 30, None)) as chat:
        with ThreadPoolExecutor(num_threads) as pool:
            speakers = [Speaker(chat, seed * 100 + number) for number in range(num_threads)]
            turns = [pool.submit(speaker.speak, num_turns) for speaker in speakers]
            num_compared = sum(turn.result(TIMEOUT) for turn in turns)
        if kamera.settings.fidelity == "exact":
            assert num_compared > num_threads * num_turns / 3
        conversations = chat.open().conversations
        assert len(conversations) <= MAX_CONVERSATIONS
        assert len(conversations._live) <= MAX_CONVERSATIONS * MAX_WINDOWS
        for live in conversations._live:
            assert not live.is_held
            live.window.check_integrity()


def test_threads(exact: Kamera) -> None:
    run(exact, num_threads=3, num_turns=8, seed=1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_threads(exact: Kamera, kamera: Kamera, seed: int) -> None:
    run(exact, num_threads=6, num_turns=40, seed=seed)
    run(kamera, num_threads=6, num_turns=80, seed=seed)
