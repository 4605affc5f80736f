"""The Triton kernels in the interpreter, against float64 and their eager twins."""

import pytest
import torch
from kernel_cases import Case, check_all, check_keys, rebuild, relocate

from kamera_agent.runtime.kernels.dispatch import EAGER, Kernels

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16

CASES = [
    Case(FP32, 1, (1, 32), (1, 32), (1, 0), pairs="interleaved"),
    Case(FP32, 63, (2, 64), (2, 64), (7, 0, 16), num_layers=3, gaps=True),
    Case(FP32, 100, (3, 80), (3, 80), (16, 7), layers_turn_alike=False),
    Case(FP32, 100, (1, 256), (1, 256), (1, 64), width=128),
    Case(FP32, 1196, (1, 32), (1, 32), (16,), num_layers=1),
    Case(FP16, 1, (8, 128), (8, 128), (64, 16), layers_turn_alike=False),
    Case(FP16, 63, (1, 80), (1, 80), (16, 1), pairs="interleaved", width=40, gaps=True),
    Case(FP16, 217, (2, 128), (2, 128), None),
    Case(FP16, 1196, (2, 64), (2, 64), (7,), num_layers=1, gaps=True),
    Case(BF16, 1, (3, 256), (3, 256), (0, 7), width=64),
    Case(BF16, 63, (8, 32), (8, 32), (64, 7), gaps=True, pairs="interleaved", layers_turn_alike=False),
    Case(BF16, 100, (2, 128), (2, 128), (16, 64)),
    Case(BF16, 217, (1, 80), (1, 80), (1, 16), width=20),
    Case(BF16, 1196, (1, 128), (1, 128), (16,), num_layers=1),
    # MLA: one head of k_pe, one of the latent.
    Case(FP32, 63, (1, 64), (1, 512), (16, 7), gaps=True),
    Case(BF16, 217, (1, 64), (1, 512), (64, 0)),
    Case(FP16, 100, (1, 32), (1, 80), None, pairs="interleaved"),
    # Canonical KV and factors in int8.
    Case(FP32, 63, (2, 64), (2, 64), (7, 16), int8_kv=True, int8_factors=True, gaps=True),
    Case(BF16, 100, (3, 80), (3, 80), (16, 0), int8_kv=True, width=64),
    Case(FP16, 217, (1, 128), (1, 128), (1, 64), int8_factors=True),
    Case(BF16, 63, (1, 64), (1, 512), (16, 7), int8_kv=True, int8_factors=True, pairs="interleaved"),
    Case(FP32, 100, (2, 32), (2, 32), None, int8_kv=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rebuild_and_relocate(case: Case, interpreted: Kernels, seeded: torch.Generator) -> None:
    """1. Rebuild with the kernel: right within rounding, nothing else touched, relocating changes no bit.
    2. Rebuild with the twin: the same states, bit for bit where nothing is added.
    3. Turn the kernel's masters with the twin: the same keys, bit for bit in float32.
    """
    chunk = case.chunk(seeded)
    buffers = check_all(case, chunk, interpreted)
    twin = rebuild(EAGER, case, chunk)
    if case.ranks is None and not case.int8_kv:
        assert torch.equal(twin.masters.nan_to_num(), buffers.masters.nan_to_num())
        assert torch.equal(twin.values.nan_to_num(), buffers.values.nan_to_num())
    keys = relocate(EAGER, case, chunk, buffers.masters)
    check_keys(case, chunk, buffers.masters, keys, rounded_products=True)
    if case.dtype is FP32:
        assert torch.equal(keys.nan_to_num(), buffers.keys.nan_to_num())


def test_every_listed_size_occurs() -> None:
    assert {case.tokens for case in CASES} == {1, 63, 100, 217, 1196}
    assert {case.keys[0] for case in CASES} == {1, 2, 3, 8}
    assert {case.keys[1] for case in CASES} >= {32, 64, 80, 128, 256}
    assert {rank for case in CASES for rank in case.ranks or ()} == {0, 1, 7, 16, 64}


@pytest.mark.parametrize("empty", ["no tokens", "no layers"])
def test_nothing_to_do(empty: str, interpreted: Kernels, seeded: torch.Generator) -> None:
    case = Case(FP32, 0, (2, 64), (2, 64), ()) if empty == "no layers" else Case(FP32, 0, (2, 64), (2, 64), (4, 4))
    buffers = case.buffers()
    interpreted.rebuild(*buffers, (), *case.chunk(seeded), case.pairs)
    interpreted.relocate(*buffers[:2], (), *case.chunk(seeded)[2:], case.pairs)
    assert all(bool(buffer.isnan().all()) for buffer in buffers)
