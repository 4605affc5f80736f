"""Clients that do not read what they have asked for, and clients that leave before it is there."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import pytest
from openai import RateLimitError
from serving import QUESTION, TIMEOUT, client_of, posted, serving

from kamera_agent import Kamera
from kamera_agent.serve.app import Bounds
from kamera_agent.turns.chat import Chat, Request
from kamera_agent.window.reply import ReplyStream

# Far less than the events of LONG, with what the server itself holds back.
BUFFER = 4096
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 250}
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": QUESTION}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "numbers", "schema": NUMBERS}},
    "max_tokens": 600,
    "stream": True,
}
SHORT: dict[str, Any] = {"model": "pocket", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
DONE = b"data: [DONE]\n\n"


class Work:
    """The work on answers, which goes on only once it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.left, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
        self.num_begun = 0
        answer = Chat.answer

        @contextmanager
        def held(chat: Chat, request: Request, cancelled: Callable[[], bool]) -> Iterator[ReplyStream]:
            self.num_begun += 1
            self.begun.release()
            while not (cancelled() or self.may_go_on.is_set()):
                sleep(0.005)
            self.left.release()
            # As in a forward pass, which looks at nobody.
            assert self.may_go_on.wait(TIMEOUT)
            with answer(chat, request, cancelled) as stream:
                yield stream

        monkeypatch.setattr(Chat, "answer", held)


def await_end_of_work() -> None:
    for thread in threading.enumerate():
        if thread.name == "kamera-answer":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def read_all(client: Any) -> bytes:
    read = b""
    while piece := client.recv(1 << 16):
        read += piece
        if DONE in read:
            break
    return read


def test_a_client_that_does_not_read_holds_up_nobody(kamera: Kamera) -> None:
    """Its answer is there, so its turn and its place are free. It may still read the answer."""
    with serving(kamera, BUFFER, bounds=Bounds(num_answered=1, num_waiting=0)) as url, client_of(url) as client:
        with posted(url, LONG, BUFFER) as idle:
            assert idle.recv(64).startswith(b"HTTP/1.1 200")
            await_end_of_work()
            assert client.chat.completions.create(**SHORT).choices
            assert DONE in read_all(idle)
        assert client.chat.completions.create(**SHORT).choices


def test_a_connection_that_nobody_reads_is_cut(
    kamera: Kamera, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kamera_agent.serve.server.WRITE_S", 0.2)
    with serving(kamera, BUFFER) as url, client_of(url) as client, caplog.at_level(logging.WARNING):
        with posted(url, LONG, BUFFER) as idle:
            assert idle.recv(64).startswith(b"HTTP/1.1 200")
            for _ in range(TIMEOUT * 100):
                if "has read nothing" in caplog.text:
                    break
                sleep(0.01)
            assert "has read nothing for 0.2 s" in caplog.text
            assert DONE not in read_all(idle)
        assert client.chat.completions.create(**SHORT).choices


def test_a_client_that_leaves_keeps_its_turn_until_its_work_ends(
    kamera: Kamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no more threads are at work than there are turns, and no more requests are inside than there are places."""
    work = Work(monkeypatch)
    with serving(kamera, bounds=Bounds(num_answered=1, num_waiting=0)) as url, client_of(url) as client:
        for asked in (LONG, LONG | {"stream": False}):
            work.may_go_on.clear()
            with posted(url, asked):
                assert work.begun.acquire(timeout=TIMEOUT)
            assert work.left.acquire(timeout=TIMEOUT)
            for _ in range(2):
                with pytest.raises(RateLimitError, match="1 requests are being answered"):
                    client.chat.completions.create(**SHORT)
            work.may_go_on.set()
            await_end_of_work()
            assert client.chat.completions.create(**SHORT).choices
            assert work.begun.acquire(timeout=TIMEOUT)
            assert work.left.acquire(timeout=TIMEOUT)
    assert work.num_begun == 4


def test_a_client_that_leaves_while_it_waits_gives_its_place_back(
    kamera: Kamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(monkeypatch)
    bounds = Bounds(num_answered=1, num_waiting=1)
    with serving(kamera, bounds=bounds) as url, client_of(url) as client, posted(url, LONG):
        assert work.begun.acquire(timeout=TIMEOUT)
        for _ in range(3):
            with posted(url, LONG | {"stream": False}):
                pass
        work.may_go_on.set()
        assert client.with_options(max_retries=8).chat.completions.create(**SHORT).choices
