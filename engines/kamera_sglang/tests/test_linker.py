"""The linker as SGLang's scheduler drives it, over a pool of one layer."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import made, no_room
from sglang.srt.mem_cache.hicache_storage import PoolName, PoolTransfer
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

from kamera_sglang.linker import MAX_HELD, KameraLinker
from kamera_sglang.mailbox import Mailbox, Order

NUM_REQUESTS = MAX_HELD + 1


@pytest.fixture
def pool() -> torch.Tensor:
    """K and V of the slots: one that was computed for each request, and one to load into."""
    return torch.randn(2, 2 * NUM_REQUESTS, 1, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the mailbox."""
    folder = tmp_path / "mailbox"
    folder.mkdir()
    return folder


@pytest.fixture
def linker(tmp_path: Path, folder: Path, pool: torch.Tensor) -> Iterator[KameraLinker]:
    facts = {"k_buffer": [pool[0]], "v_buffer": [pool[1]], "dtype": pool.dtype, "store_dtype": pool.dtype}
    allocator = SimpleNamespace(get_kvcache=lambda: made(MHATokenToKVPool, **facts))
    args = SimpleNamespace(
        tp_size=1, pp_size=1, model_path=tmp_path, revision=None, quantization=None, json_model_override_args="{}"
    )
    params = SimpleNamespace(token_to_kv_pool_allocator=allocator, page_size=1)
    config = {"store": [str(tmp_path / "store")], "mailbox": str(folder)}
    linker = KameraLinker(args, params, components=(), extra_config=config, forward_stream=None)
    yield linker
    linker.close()


def transfers(number: int, slot: int = 0) -> list[PoolTransfer]:
    """The only page of a prompt."""
    name = sha256(bytes([number])).hexdigest()
    return [PoolTransfer(PoolName.KV, keys=[name], device_indices=torch.tensor([slot]))]


def compute(linker: KameraLinker, number: int) -> None:
    assert linker.lookup(f"new {number}", transfers(number)) == []
    assert linker.offload(transfers(number, number))


def test_all_requests_of_a_pass_are_loaded(linker: KameraLinker, pool: torch.Tensor) -> None:
    """More of them than are held: each is queued before the next is looked up."""
    for number in range(NUM_REQUESTS):
        compute(linker, number)
    for number in range(NUM_REQUESTS):
        assert linker.lookup(f"again {number}", transfers(number)) == [1]
        assert linker.load(f"again {number}", transfers(number, NUM_REQUESTS + number))
    assert linker.finish_layer_wise_loading(linker.start_layer_wise_loading())
    assert torch.equal(pool[:, NUM_REQUESTS:], pool[:, :NUM_REQUESTS])


def test_what_waited_too_long_is_computed(linker: KameraLinker) -> None:
    for number in range(NUM_REQUESTS):
        compute(linker, number)
    for number in range(NUM_REQUESTS):
        assert linker.lookup(f"again {number}", transfers(number)) == [1]
    assert [linker.load(f"again {number}", transfers(number)) for number in (0, 1)] == [False, True]


def test_a_load_that_is_cancelled_writes_nothing(linker: KameraLinker, pool: torch.Tensor) -> None:
    compute(linker, 0)
    before = pool.clone()
    assert linker.lookup("again", transfers(0)) == [1]
    assert linker.load("again", transfers(0, NUM_REQUESTS))
    assert linker.cancel_queued_load("again")
    assert linker.start_layer_wise_loading() == -1
    assert torch.equal(pool, before)
    assert linker.lookup("again", transfers(0)) == [1], "it may come back"


def test_an_engine_goes_on_that_cannot_deliver(linker: KameraLinker, folder: Path) -> None:
    mailbox = Mailbox(folder)
    mailbox.place("a", Order(2, (), [range(1)]))
    assert linker.lookup("a", transfers(0)) == []
    with no_room():
        assert linker.offload(transfers(0))
    assert mailbox.taken("a") is None
    compute(linker, 1)
