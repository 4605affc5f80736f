"""What the worker reads from pages and has the store keep."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kamera_agent.chunk import Key
from kamera_agent.config import Settings
from kamera_agent.pages.page import page_layers
from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.store.memory import MemoryStore
from kamera_vllm.orders import Keeping
from kamera_vllm.pages import Pages, learn_places
from kamera_vllm.worker import Worker

SIZE, NUM_BLOCKS, HEADS = 4, 3, Heads(2, 8)
ROTATION = Rotation((1.0,) * HEADS.dim, (0,) * HEADS.dim, 1.0, "half", 1, HEADS, "float32")
KEYS = [Key.of(number=number) for number in range(NUM_BLOCKS)]


class Plain:
    """A backend that puts K and V of a token one after the other."""

    def do_kv_cache_update(self, _: Any, keys: Any, values: Any, cache: torch.Tensor, slots: torch.Tensor) -> None:
        cache[slots // SIZE, :, slots % SIZE] = torch.cat([keys, values], -1)


@pytest.fixture
def cache() -> torch.Tensor:
    return torch.randn(NUM_BLOCKS, HEADS.num, SIZE, 2 * HEADS.dim)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(1 << 20)


def worker_of(store: MemoryStore, cache: torch.Tensor, **settings: Any) -> Worker:
    attention = SimpleNamespace(impl=Plain())
    pages = Pages(attention, cache, learn_places(attention, cache, HEADS), HEADS)
    return Worker(store, Settings(**settings), ROTATION, SIZE, [pages])


def test_pages_that_cannot_be_read_do_not_end_the_engine(
    store: MemoryStore, cache: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(store, cache)
    # The engine has no such block.
    worker.keep([Keeping([NUM_BLOCKS], SIZE, None, KEYS[:1]), Keeping([1], SIZE, None, KEYS[1:2])])
    worker.close()
    [(digest, record)] = store.get_many(KEYS).items()
    assert digest == KEYS[1].digest
    [layer] = page_layers(record)
    assert torch.equal(torch.cat(layer[:2], -1), cache[1])
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("num_waiting", [1, 2])
def test_what_waits_is_bounded_in_bytes(store: MemoryStore, cache: torch.Tensor, num_waiting: int) -> None:
    """Room for two pages, or for none: one may always wait."""
    worker = worker_of(store, cache, memory_bytes=2 * cache[0].nbytes if num_waiting == 2 else 0)
    with worker._thread.busy:
        worker.keep([Keeping([0, 1, 2], NUM_BLOCKS * SIZE, None, KEYS)])
    worker.close()
    assert [*store.get_many(KEYS)] == [key.digest for key in KEYS[:num_waiting]]
