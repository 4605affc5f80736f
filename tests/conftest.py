"""What every test runs under: offline, one thread, fresh memory full of NaN."""

import os

# Before anything imports huggingface_hub and torch, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Programs that tests start have one thread as well: those of several workers would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch

SEED = 20260623


def pytest_configure() -> None:
    # The models are tiny: one thread is fastest, and sums run in the same order on every machine.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))


@pytest.fixture(autouse=True)
def seeded() -> torch.Generator:
    """Every test starts from the same seed; the generator is for draws that must not depend on others."""
    torch.manual_seed(SEED)
    return torch.Generator().manual_seed(SEED)


@pytest.fixture(autouse=True)
def asleep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is healed beside a test, which would find other KV from run to run; settle() heals.

    A test of what goes on beside answers asks for the fixture `awake`.
    """
    if "awake" not in request.fixturenames:
        monkeypatch.setattr("kamera_agent.window.healer.Healer.wake", lambda *_: None)


@pytest.fixture
def awake() -> None:
    """Windows are healed in the background."""


@pytest.fixture
def passes(kamera: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every forward pass of the fixture `kamera`."""
    counted: list[int] = []

    def counting(work: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any) -> Any:
            counted.append(1)
            return work(*args)

        return count

    for name in ("prefill", "extend"):
        monkeypatch.setattr(kamera._engine, name, counting(getattr(kamera._engine, name)))
    return counted


@pytest.fixture(scope="session", autouse=True)
def fresh_memory_is_poison() -> Iterator[None]:
    """torch.empty and its kin return NaN, or the largest integer, instead of what happened to lie there.

    Patched by hand: torch.use_deterministic_algorithms() fills fresh memory too, but also swaps
    implementations and raises for operations that have no deterministic one.
    """
    # "with torch.device(...)" lists the constructors it redirects on first use: let it see the real ones.
    with torch.device("cpu"):
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (torch, "empty_strided"),
            (torch.Tensor, "new_empty"),
            (torch.Tensor, "new_empty_strided"),
        ):
            patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @wraps(allocate)
    def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
        fresh = allocate(*args, **kwargs)
        with torch.no_grad():
            return _poison(fresh)

    return wrapper


def _poison(fresh: torch.Tensor) -> torch.Tensor:
    if fresh.layout is not torch.strided:
        return fresh
    if fresh.is_floating_point() or fresh.is_complex():
        return fresh.fill_(float("nan"))
    if fresh.dtype is torch.bool:
        return fresh.fill_(True)
    return fresh.fill_(torch.iinfo(fresh.dtype).max)
