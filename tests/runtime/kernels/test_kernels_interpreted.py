"""The Triton kernels in the interpreter, against float64 and their eager twins."""

import pytest
import torch
from kernel_cases import CASES, FP32, Case, check_all, check_keys, rebuild, relocate

from kamera_agent.runtime.kernels.dispatch import EAGER, Kernels
from kamera_agent.runtime.kernels.slots import Slots


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
    interpreted.rebuild(*buffers, Slots(), *case.chunk(seeded), case.pairs)
    interpreted.relocate(*buffers[:2], Slots(), *case.chunk(seeded)[2:], case.pairs)
    assert all(bool(buffer.isnan().all()) for buffer in buffers)
