"""Windows over a store on another machine, which may be slow or gone."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot
from servers import Proxy, Server, start_redis

from kamera_agent import InputError, Kamera, SettingError
from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.store.remote import wire

NUM_IMAGES = 3
# Of a turn that shall find the store, on a busy machine.
PATIENT = {"shared_timeout_ms": 60_000}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = start_redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def expected(models: dict[str, Any], processor: PocketProcessor) -> torch.Tensor:
    """Plain Hugging Face's."""
    images = [screenshot(i) for i in range(NUM_IMAGES)]
    return Conversation(models["qwen2_5_vl"], processor).say("user", *images, "what?").logits()


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def ask(kamera: Kamera) -> tuple[torch.Tensor, set[str | None]]:
    """Logits over NUM_IMAGES images, and the origins of their spans."""
    window = kamera.window()
    for i in range(NUM_IMAGES):
        window.add_image(screenshot(i))
    logits = window.logits("what?")
    kamera.flush()
    return logits, {span.origin for span in window.spans if span.kind == "image"}


def test_what_one_machine_computed_another_one_recalls(
    make: MakeKamera, server: Server, expected: torch.Tensor
) -> None:
    with make(store=url(server.port), **PATIENT) as first:
        assert ask(first)[1] == {"computed"}
    with make(store=url(server.port), **PATIENT) as second:
        logits, origins = ask(second)
        assert origins == {"recalled"}
        assert second.stats().encoder_calls == 0
        assert max_error(expected, logits) <= 1e-4


def test_tiers_fill_each_other(make: MakeKamera, server: Server, tmp_path: Path) -> None:
    """1. One machine with a folder writes to both. 2. Another one recalls from the server, and so into its folder,
    3. from which it recalls alone."""
    with make(store=[tmp_path / "first", url(server.port)], **PATIENT) as kamera:
        assert ask(kamera)[1] == {"computed"}
    with make(store=tmp_path / "first") as kamera:
        assert ask(kamera)[1] == {"recalled"}
    with make(store=[tmp_path / "second", url(server.port)], **PATIENT) as kamera:
        assert ask(kamera)[1] == {"recalled"}
    server.kill()
    with make(store=tmp_path / "second") as kamera:
        assert ask(kamera)[1] == {"recalled"}


def test_a_turn_makes_three_round_trips_however_many_chunks_it_recalls(
    make: MakeKamera, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the records of all chunks, their headers, and the parts of all records."""
    with make(store=url(proxy.port), **PATIENT) as kamera:
        ask(kamera)
    with make(store=url(proxy.port), heal="never", **PATIENT) as kamera:
        kamera.store.headers(b"\0" * 32)
        calls: list[str] = []
        medium = kamera.store.lower._medium
        for name in ("get", "members"):
            real = getattr(medium, name)
            monkeypatch.setattr(medium, name, lambda names, name=name, real=real: calls.append(name) or real(names))
        window = kamera.window()
        for i in range(NUM_IMAGES):
            window.add_image(screenshot(i))
        window.logits("what?")
        assert {span.origin for span in window.spans if span.kind == "image"} == {"recalled"}
        assert calls[:3] == ["members", "get", "get"]


def test_a_store_that_is_not_there_costs_nothing_but_what_it_holds(
    make: MakeKamera, server: Server, expected: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    with make(store=url(server.port)) as kamera:
        for _ in range(2):
            logits, origins = ask(kamera)
            assert max_error(expected, logits) <= 1e-4
        # From memory.
        assert origins == {"recalled"}
        assert kamera.stats().store.failed_writes == NUM_IMAGES
    assert caplog.text.count("does not answer") == 1
    assert caplog.text.count("cannot be written") == 1


def test_a_silent_store_is_left_alone_and_asked_again_later(
    make: MakeKamera,
    proxy: Proxy,
    expected: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its answers never come: without a time-out, a turn would not end."""
    caplog.set_level(logging.INFO, "kamera_agent.store")
    with make(store=url(proxy.port), **PATIENT) as kamera:
        ask(kamera)
    now = 0.0
    monkeypatch.setattr(wire, "monotonic", lambda: now)
    monkeypatch.setattr("kamera_agent.store.remote.writer.WRITE_S", 0.1)
    proxy.is_silent = True
    with make(store=url(proxy.port), shared_timeout_ms=50) as kamera:
        logits, origins = ask(kamera)
        assert origins == {"computed"}
        assert max_error(expected, logits) <= 1e-4
        num_requests = proxy.num_requests
        kamera.store.upper.delete([header.key for header in kamera.store.upper.headers()])
        assert max_error(expected, ask(kamera)[0]) <= 1e-4
        assert proxy.num_requests == num_requests
    assert caplog.text.count("does not answer") == 1
    proxy.is_silent = False
    now = wire.REST_S + 1
    with make(store=url(proxy.port), **PATIENT) as kamera:
        assert ask(kamera)[1] == {"recalled"}


@pytest.mark.parametrize("num_bytes", [0, 100, 3_000, 20_000, 60_000])
def test_connections_that_are_cut_in_an_answer_are_misses(
    make: MakeKamera, proxy: Proxy, expected: torch.Tensor, num_bytes: int
) -> None:
    with make(store=url(proxy.port), **PATIENT) as kamera:
        ask(kamera)
    proxy.cut_after = num_bytes
    with make(store=url(proxy.port), **PATIENT) as kamera:
        logits, _ = ask(kamera)
        assert max_error(expected, logits) <= 1e-4
    proxy.cut_after = None
    with make(store=url(proxy.port), **PATIENT) as kamera:
        logits, origins = ask(kamera)
        assert origins == {"recalled"}
        assert max_error(expected, logits) <= 1e-4


@pytest.mark.parametrize("num_kills", [5, pytest.param(100, marks=[pytest.mark.torture, pytest.mark.timeout(3000)])])
def test_answers_go_on_while_the_server_is_killed(
    make: MakeKamera, server: Server, expected: torch.Tensor, num_kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round: an answer, a kill at some moment of the next two, these, and a new server without content."""
    monkeypatch.setattr(wire, "REST_S", 0.05)
    for kill in range(num_kills):
        with make(store=url(server.port), **PATIENT) as kamera:
            ask(kamera)
        # Whether the next two find it in time is left to the machine; a patient one does.
        with make(store=url(server.port), **PATIENT) as kamera:
            assert "recalled" in ask(kamera)[1]
        with make(store=url(server.port)) as kamera:
            timer = threading.Timer(0.02 * (kill % 10), server.kill)
            timer.start()
            for _ in range(2):
                assert max_error(expected, ask(kamera)[0]) <= 1e-4
                kamera.store.upper.delete([header.key for header in kamera.store.upper.headers()])
            timer.join()
        server.start()


@pytest.mark.parametrize(
    ("store", "message"),
    [([], "empty list"), (5, "use a list"), ([5], "use a path"), (["folder", None], "use a path"), ("ftp://x", "ftp")],
)
def test_what_names_no_store_is_refused(make: MakeKamera, tmp_path: Path, store: Any, message: str) -> None:
    if isinstance(store, list):
        store = [tmp_path if place == "folder" else place for place in store]
    with pytest.raises(InputError, match=message):
        make(store=store)


def test_an_option_outside_its_range_is_refused(make: MakeKamera) -> None:
    with pytest.raises(SettingError, match="shared_timeout_ms is 0; use at least 1 ms"):
        make(shared_timeout_ms=0)
