"""Clients replayed over servers, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from benchmarks.serve.clients import Messages, Turn
from benchmarks.serve.plain import Answer, Plain, PrefixCache
from benchmarks.serve.process import MAX_TOKENS, Given, Server
from benchmarks.serve.walk import walk

Client = Callable[[Sequence[Turn]], Messages]


class Step(NamedTuple):
    """A step of a client.

    full: the answer of plain Hugging Face. prefix: tokens that the best of prefix caches computes. given: by server.
    background_s: seconds of a core that a server took after its answer, by server.
    """

    full: Answer
    prefix: int
    given: Mapping[str, Given]
    background_s: Mapping[str, float]


def replay(client: Client, plain: Plain, servers: Mapping[str, Server], num_steps: int, seed: int) -> Iterator[Step]:
    """The steps of one client. The order of the servers changes from step to step; each rests before the next one.

    The history holds the answers of plain Hugging Face, so every server gets the same messages.
    """
    cache, names = PrefixCache(), [*servers]
    for number, (messages, full) in enumerate(_conversation(client, plain, num_steps, seed)):
        first = number % len(names)
        given, background_s = {}, {}
        for name in names[first:] + names[:first]:
            given[name] = servers[name].answer(messages)
            background_s[name] = servers[name].rest()
        yield Step(full, cache.num_computed(full), given, background_s)


def cross_talk(client: Client, plain: Plain, server: Server, num_steps: int, seeds: tuple[int, int]) -> list[bool]:
    """Two clients begin alike and take turns. Whether each answer is another one than that of a full prefill."""
    pairs = zip(*(_conversation(client, plain, num_steps, seed) for seed in seeds), strict=True)
    return [server.answer(messages).text != full.text for pair in pairs for messages, full in pair]


def _conversation(client: Client, plain: Plain, num_steps: int, seed: int) -> Iterator[tuple[Messages, Answer]]:
    said: list[Turn] = []
    for turn in islice(walk(seed), num_steps):
        messages = client([*said, turn])
        full = plain.answer(messages, MAX_TOKENS)
        said.append(replace(turn, reply=full.text))
        yield messages, full
