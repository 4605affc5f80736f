"""Loans of one Kamera for all users of a model. No model is loaded: loading is under the test's control."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from kamera_agent import Kamera, ModelError, Settings
from kamera_agent.turns.chat import Chat, Limits
from kamera_agent.turns.loans import Loan

TIMEOUT = 20


class Loaded:
    """Stands for a Kamera."""

    closed = False
    family = SimpleNamespace(processors=SimpleNamespace(tokenizer=None))
    settings = Settings()

    def close(self) -> None:
        self.closed = True


class Loading:
    """Takes the place of Kamera.from_pretrained: a slow model is loaded when it is let go, a broken one never."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, model: str, **options: Any) -> Loaded:
        self.names.append(model)
        if "slow" in model:
            self.started.set()
            assert self.go_on.wait(TIMEOUT)
        if "broken" in model:
            raise ModelError(f"Cannot load {model!r}.")
        return Loaded()


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    loading = Loading()
    monkeypatch.setattr(Kamera, "from_pretrained", loading)
    yield loading
    loading.go_on.set()


def test_while_one_model_loads_others_are_taken_and_given_back(loading: Loading) -> None:
    there = Loan("there", {})
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(Loan, "slow", {})
        assert loading.started.wait(TIMEOUT)
        new = pool.submit(Loan, "new", {}).result(TIMEOUT)
        again = pool.submit(Loan, "there", {}).result(TIMEOUT)
        assert again.kamera is there.kamera
        pool.submit(new.close).result(TIMEOUT)
        assert not slow.done()
        loading.go_on.set()
        assert slow.result(TIMEOUT).kamera is not there.kamera
    assert loading.names == ["there", "slow", "new"]


def test_while_a_chat_loads_its_model_it_answers_over_others(loading: Loading) -> None:
    with ThreadPoolExecutor() as pool, Chat(None, "slow", {}, Limits(1, 1, None)) as chat:
        slow = pool.submit(chat.open)
        assert loading.started.wait(TIMEOUT)
        other = pool.submit(lambda: chat.over("other").open()).result(TIMEOUT)
        assert not slow.done()
        loading.go_on.set()
        assert slow.result(TIMEOUT).kamera is not other.kamera
    assert other.kamera.closed  # type: ignore[attr-defined]


def test_all_who_want_a_model_that_loads_wait_for_it(loading: Loading) -> None:
    with ThreadPoolExecutor() as pool:
        loans = [pool.submit(Loan, "slow", {}) for _ in range(4)]
        assert loading.started.wait(TIMEOUT)
        loading.go_on.set()
        kameras = {loan.result(TIMEOUT).kamera for loan in loans}
    assert loading.names == ["slow"]
    assert len(kameras) == 1


def test_a_failed_load_leaves_nothing(loading: Loading) -> None:
    """Everybody who waits meets the error, other options may follow, and the next try loads."""
    with ThreadPoolExecutor() as pool:
        loans = [pool.submit(Loan, "slow and broken", {}) for _ in range(2)]
        assert loading.started.wait(TIMEOUT)
        loading.go_on.set()
        for loan in loans:
            with pytest.raises(ModelError, match="Cannot load"):
                loan.result(TIMEOUT)
    num_tries = len(loading.names)
    with pytest.raises(ModelError, match="Cannot load"):
        Loan("slow and broken", {"rank": 8})
    assert len(loading.names) == num_tries + 1


def test_the_last_user_closes_it_and_the_next_loads_anew(loading: Loading) -> None:
    first, second = Loan("model", {}), Loan("model", {})
    kamera: Any = first.kamera
    first.close()
    first.close()
    assert not kamera.closed
    second.close()
    assert kamera.closed
    third = Loan("model", {"rank": 8})
    assert third.kamera is not kamera
    second.close()
    assert not third.kamera.closed  # type: ignore[attr-defined]
