"""No body makes a server fail or hang. A short seeded run; ten minutes with -m torture."""

import time
from collections import Counter
from itertools import count
from typing import Any

import httpx
import pytest
from fuzzing import bodies, check, endpoints
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from openai import OpenAI
from serving import QUESTION

TORTURE_S = 600


def fuzz(url: str, number: int, num_examples: int) -> Counter[int]:
    """How often each status came."""
    statuses: Counter[int] = Counter()
    choices = [st.tuples(st.just(path), bodies(*schemas)) for path, schemas in endpoints(url).items()]
    with httpx.Client(base_url=url.removesuffix("/v1")) as client:

        @seed(number)
        @settings(
            max_examples=num_examples,
            deadline=None,
            database=None,
            suppress_health_check=[*HealthCheck],
            print_blob=False,
        )
        @given(st.one_of(choices))
        def run(drawn: tuple[str, Any]) -> None:
            statuses[check(client, *drawn)] += 1

        run()
    return statuses


def ask(client: OpenAI) -> Any:
    messages: Any = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(model="pocket", messages=messages, max_tokens=4).choices[0].message


def test_no_body_makes_a_server_fail(url: str, client: OpenAI) -> None:
    """Some are answered, most are refused, and the server goes on as before."""
    before = ask(client)
    statuses = fuzz(url, 0, 60)
    assert statuses[200] > 0
    assert statuses[400] > 0
    assert ask(client) == before


@pytest.mark.torture
@pytest.mark.timeout(2 * TORTURE_S)
def test_ten_minutes_of_bodies(url: str, client: OpenAI) -> None:
    before, end, statuses = ask(client), time.monotonic() + TORTURE_S, Counter[int]()
    for number in count(1):
        statuses += fuzz(url, number, 200)
        if time.monotonic() > end:
            break
    assert statuses[200] > 0
    assert ask(client) == before
