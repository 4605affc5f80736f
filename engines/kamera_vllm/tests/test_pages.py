"""Pages as tokens, in every layout that the CPU backend has for a dtype, and in one that we made up."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import _custom_ops as ops
from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_vllm.pages import Pages, learn_places

NUM_BLOCKS, SIZE, HEADS = 5, 32, Heads(2, 64)
# Out of order, and from the middle of a block to the middle of another.
BLOCK_IDS, TOKENS = [3, 0, 4], range(7, 75)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Cpu:
    """What vLLM's CPU backend writes with."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._isa = _get_attn_isa(dtype, SIZE, HEADS.dim, "auto")

    def do_kv_cache_update(self, _: Any, keys: Any, values: Any, cache: torch.Tensor, slots: torch.Tensor) -> None:
        halves = cache.view(len(cache), HEADS.num, 2 * SIZE, HEADS.dim).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(keys, values, *halves, slots, self._isa)


class Reversed:
    """A backend with the numbers of each token from back to front."""

    def do_kv_cache_update(self, _: Any, keys: Any, values: Any, cache: torch.Tensor, slots: torch.Tensor) -> None:
        cache[slots // SIZE, :, slots % SIZE] = torch.cat([keys, values], -1).flip(-1)


class Rounded(Reversed):
    """A backend that keeps less than it is given."""

    def do_kv_cache_update(self, _: Any, keys: Any, values: Any, cache: torch.Tensor, slots: torch.Tensor) -> None:
        super().do_kv_cache_update(_, keys // 2, values, cache, slots)


def attention(impl: Any) -> Any:
    return SimpleNamespace(impl=impl)


def cache_of(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((NUM_BLOCKS, HEADS.num, SIZE, 2 * HEADS.dim), float("nan"), dtype=dtype)


def kv(dtype: torch.dtype = torch.float32) -> LayerKV:
    return LayerKV(*(torch.randn(HEADS.num, len(TOKENS), HEADS.dim).to(dtype) for _ in range(2)))


CASES = {name: (Cpu(dtype), dtype) for name, dtype in DTYPES.items()} | {"reversed": (Reversed(), torch.float32)}


@pytest.mark.parametrize(("impl", "dtype"), CASES.values(), ids=CASES)
def test_tokens_are_read_as_the_backend_writes_them(impl: Any, dtype: torch.dtype) -> None:
    cache, states = cache_of(dtype), kv(dtype)
    pages = Pages(attention(impl), cache, learn_places(attention(impl), cache, HEADS), HEADS)
    assert cache.isnan().all(), "nothing is written to learn"
    pages.write(BLOCK_IDS, TOKENS, states)
    found = pages.read(BLOCK_IDS, TOKENS)
    assert torch.equal(found.keys, states.keys)
    assert torch.equal(found.values, states.values)
    part = pages.read(BLOCK_IDS, range(40, 70))
    assert torch.equal(part.keys, states.keys[:, 33:63])
    assert all(none.shape == (HEADS.num, 0, HEADS.dim) for none in pages.read(BLOCK_IDS, range(SIZE, SIZE))[:2])
    assert int((~cache.isnan()).sum()) == 2 * HEADS.num * len(TOKENS) * HEADS.dim, "other tokens are left alone"


def test_blocks_of_another_order_in_memory_are_read() -> None:
    """As backends have it that keep the heads of a token together."""
    cache = cache_of().transpose(1, 2).contiguous().transpose(1, 2)
    impl, states = attention(Reversed()), kv()
    pages = Pages(impl, cache, learn_places(impl, cache, HEADS), HEADS)
    pages.write(BLOCK_IDS, TOKENS, states)
    assert torch.equal(pages.read(BLOCK_IDS, TOKENS).keys, states.keys)


@pytest.mark.parametrize("impl", [Rounded(), object()], ids=["rounded", "no update of its own"])
def test_a_backend_that_keeps_something_else_is_refused(impl: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="do not hold the plain K and V"):
        learn_places(attention(impl), cache_of(), HEADS)
