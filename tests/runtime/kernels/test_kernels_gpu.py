"""The kernels, compiled for the CUDA device that they run on."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_cases import BF16, CASES, FP16, FP32, FP32_ULP, Case, check_all, check_keys, relocate

from kamera_agent.runtime.bank import Heads, KVShape
from kamera_agent.runtime.families.decoder import FULL
from kamera_agent.runtime.kernels.dispatch import EAGER, Kernels, kernels_for
from kamera_agent.runtime.kernels.layers import on_device
from kamera_agent.runtime.kv_pool import KVPool

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
# A scaled int8 factor is two bfloat16 numbers, which hold 17 bits; tensor cores truncate where float32 would round.
SCALED_ERROR = 2.0**-17


@pytest.fixture(scope="module")
def compiled() -> Iterator[Kernels]:
    kernels = kernels_for(torch.device(DEVICE))
    assert kernels is not EAGER
    yield kernels
    torch.cuda.synchronize()


def product_error(case: Case) -> float:
    if case.ranks is None or case.dtype is FP32:
        return 0.0
    return max(case.ranks) * FP32_ULP + SCALED_ERROR * case.int8_factors


@pytest.mark.parametrize("stream", ["default stream", "side stream"])
@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rebuild_and_relocate(
    case: Case, dtype: torch.dtype, stream: str, compiled: Kernels, seeded: torch.Generator
) -> None:
    case = replace(case, dtype=dtype)
    chunk = case.chunk(seeded, DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()) if stream == "side stream" else nullcontext():
        buffers = check_all(case, chunk, compiled, DEVICE, product_error(case))
        keys = relocate(EAGER, case, chunk, buffers.masters)
        check_keys(case, chunk, buffers.masters, keys, rounded_products=True)
        if dtype is FP32:
            assert torch.equal(keys.nan_to_num(), buffers.keys.nan_to_num())


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16], ids=str)
def test_other_slots_of_a_live_pool_are_not_touched(
    dtype: torch.dtype, compiled: Kernels, seeded: torch.Generator
) -> None:
    case = Case(dtype, 217, (3, 80), (3, 80), (16, 7), gaps=True, width=40)
    chunk = case.chunk(seeded, DEVICE)
    buffers = [torch.randn(buffer.shape, generator=seeded).to(buffer).clone() for buffer in case.buffers(DEVICE)]
    before = [buffer.clone() for buffer in buffers]
    compiled.rebuild(*buffers, case.slots, *chunk, case.pairs)
    compiled.relocate(*buffers[:2], case.slots, chunk.cos, chunk.sin, case.pairs)
    others = sorted({*range(case.num_slots)} - {*case.slot_list})
    for old, new in zip(before, buffers, strict=True):
        assert torch.equal(old[:, :, others], new[:, :, others])
        assert not torch.equal(old[:, :, case.slot_list], new[:, :, case.slot_list])


@pytest.mark.parametrize("side", [False, True], ids=["default stream", "side stream"])
def test_the_pool_takes_chunks_from_the_cpu(side: bool, seeded: torch.Generator) -> None:
    """Through pinned memory, group by group, beside live spans: the same bits as from tensors on the device."""
    case = Case(BF16, 1196, (4, 128), (4, 128), (16, 0, 7, 64) * 3, num_layers=12)
    shape = KVShape(tuple(range(12)), FULL, Heads(4, 128), Heads(4, 128), BF16, torch.device(DEVICE))
    chunks = [case.chunk(seeded) for _ in range(3)]
    torch.cuda.synchronize()
    results: list[Any] = []
    with torch.cuda.stream(torch.cuda.Stream()) if side else nullcontext():
        for where in ("cpu", DEVICE):
            pool = KVPool([shape])
            for chunk in chunks:
                kv = [on_device(layer, torch.device(where)) for layer in chunk.base]
                factors = [on_device(layer, torch.device(where)) for layer in chunk.factors or ()]
                pool.load(pool.allocate(case.tokens), kv, factors, [(chunk.cos.to(DEVICE), chunk.sin.to(DEVICE))])
            [bank] = pool.banks
            results.append([buffer.cpu() for buffer in (bank.masters, bank.keys, bank.values)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
