"""Guesses at the next tokens: what they are, and that a reply is the same with any."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from huggingface import Conversation
from hypothesis import given
from hypothesis import strategies as st
from models import MakeKamera, count_passes, max_error, screenshot

from kamera_agent import Kamera, Window
from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.window import answer
from kamera_agent.window.lookup import FIRST, LONGEST, LONGEST_PAUSE, NUM_SAME, NUM_SEARCHED, Lookup

NONE: frozenset[int] = frozenset()
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 7},
    "sampled of few": {"temperature": 0.7, "top_k": 3, "seed": 8},
}


def test_it_guesses_what_followed_the_last_time() -> None:
    before = [1, 2, 3, 50, 51, 52, 1, 2, 3, 60, 61, 62, 63, 9, 1, 2]
    for most, expected in ((9, [60, 61, 62]), (2, [60, 61]), (0, [])):
        lookup = Lookup(before, NONE)
        assert lookup.guess(9) == []
        lookup.push(3)
        assert lookup.guess(most) == expected


def test_a_guess_ends_before_a_placeholder() -> None:
    assert Lookup([1, 2, 3, 60, 7, 61, 1, 2, 3], frozenset({7})).guess(9) == [60]


@given(st.lists(st.integers(0, 2), max_size=40))
def test_a_guess_is_what_a_reader_would_find(token_ids: list[int]) -> None:
    expected: list[int] = []
    for end in range(NUM_SAME, len(token_ids)):
        if token_ids[end - NUM_SAME : end] == token_ids[-NUM_SAME:]:
            expected = list(itertools.islice(itertools.cycle(token_ids[end:]), FIRST))
    assert Lookup(token_ids, NONE).guess(9) == expected


def test_right_guesses_grow_and_wrong_ones_pause() -> None:
    lookup = Lookup([5] * 10, NONE)
    lengths = []
    for _ in range(4):
        guess = lookup.guess(99)
        lengths.append(len(guess))
        for token in guess:
            lookup.push(token)
    assert lengths == [FIRST, 7, 15, LONGEST]
    num_guesses = 0
    for number in range(1000):
        num_guesses += bool(lookup.guess(99))
        # The same three tokens go before another one each time.
        for token in (5, 5, 5, 1000 + number):
            lookup.push(token)
        for token in (5, 5, 5):
            lookup.push(token)
    assert num_guesses <= 7000 / LONGEST_PAUSE + 10


def test_a_long_reply_goes_on_with_its_last_tokens() -> None:
    lookup = Lookup([], NONE)
    for number in range(3 * NUM_SEARCHED):
        lookup.push(number % 1000)
    expected = [(3 * NUM_SEARCHED + ahead) % 1000 for ahead in range(FIRST)]
    assert lookup.guess(9) == expected


Guesser = Callable[[int, int], Sequence[int]]


class Scripted:
    """In the place of Lookup: guesses of a function of the number of tokens so far, and of the most that may be."""

    def __init__(self, guesser: Guesser) -> None:
        self._guesser, self.num_tokens = guesser, 0

    def push(self, token: int) -> None:
        self.num_tokens += 1

    def guess(self, most: int) -> Sequence[int]:
        return self._guesser(self.num_tokens, most)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Guesser], None]:
    def script(guesser: Guesser) -> None:
        monkeypatch.setattr(answer, "Lookup", lambda *_: Scripted(guesser))

    return script


def new_window(make: MakeKamera) -> tuple[Kamera, Window]:
    kamera = make()
    window = kamera.window()
    window.add_image(screenshot(0))
    return kamera, window


def said(window: Window, span_id: str | None) -> tuple[int, ...]:
    return next(item.run.token_ids for item in window._items.live if item.id == span_id)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_any_guess_leaves_the_reply_as_it_is(
    make: MakeKamera,
    monkeypatch: pytest.MonkeyPatch,
    scripted: Callable[[Guesser], None],
    sampling: dict[str, Any],
    processor: PocketProcessor,
    models: dict[str, Any],
) -> None:
    """1. A reply token by token. 2. With all guessed, with half, with nonsense, and by chance: the same, and the window
    after it answers as a plain prefill does."""
    scripted(lambda *_: ())
    kamera, window = new_window(make)
    plain = count_passes(kamera, monkeypatch)
    expected = said(window, window.generate("what?", max_tokens=24, **sampling).span_id)
    assert plain == [1] * len(expected)
    rng = random.Random(3)
    whole, half = list(expected), [token if place % 3 else 0 for place, token in enumerate(expected)]
    by_chance = [token if rng.random() < 0.7 else rng.randrange(256) for token in expected]
    nonsense = [rng.randrange(256) for _ in expected]
    for guesses in (whole, half, by_chance, nonsense):
        scripted(lambda place, most, guesses=guesses: guesses[place : place + min(most, 5)])
        kamera, window = new_window(make)
        passes = count_passes(kamera, monkeypatch)
        reply = window.generate("what?", max_tokens=24, **sampling)
        assert said(window, reply.span_id) == expected
        assert reply.usage.tokens_generated == len(expected)
        if guesses is whole:
            assert len(passes) == -(-len(expected) // 6)
        window.check_integrity()
        talk = Conversation(models["qwen2_5_vl"], processor).say("user", screenshot(0), "what?")
        talk.say("assistant", expected).say("user", "and?")
        assert max_error(talk.logits(), window.logits("and?")) <= 1e-4


def test_a_stream_that_is_closed_keeps_what_was_read(make: MakeKamera, scripted: Callable[[Guesser], None]) -> None:
    """Tokens that were computed ahead, right as they are, do not come into the window."""
    scripted(lambda *_: ())
    _, window = new_window(make)
    text = window.generate("what?", max_tokens=12)
    expected = said(window, text.span_id)
    scripted(lambda place, most: expected[place : place + most])
    _, window = new_window(make)
    stream = window.stream("what?", max_tokens=12)
    pieces = [next(stream) for _ in range(3)]
    stream.close()
    assert text.text.startswith("".join(pieces))
    kept = said(window, window.spans[-1].id)
    assert kept == expected[: len(kept)]
    assert len(kept) < len(expected)
    window.check_integrity()
    assert max_error(window.reference_logits("and?"), window.logits("and?")) <= 1e-4


def test_the_pool_does_not_grow_while_a_reply_of_known_length_is_drawn(
    make: MakeKamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    kamera, window = new_window(make)
    capacities: set[int] = set()
    extend = kamera._engine.extend

    def watching(pool: Any, placed: Any) -> torch.Tensor:
        capacities.add(pool.capacity)
        return extend(pool, placed)

    monkeypatch.setattr(kamera._engine, "extend", watching)
    window.generate("what?", max_tokens=40)
    assert len(capacities) == 1
