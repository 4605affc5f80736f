"""The eager twins against Hugging Face's rotary function and float64 arithmetic."""

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from kamera_agent.runtime.kernels import reference
from kamera_agent.runtime.kernels.dispatch import kernels_for

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1, 32), (2, 63, 64), (3, 217, 80), (8, 100, 128), (2, 1196, 16)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotate_has_the_bits_of_the_models_own(
    shape: tuple[int, int, int], dtype: torch.dtype, seeded: torch.Generator
) -> None:
    _, tokens, dim = shape
    keys = torch.randn(shape, generator=seeded).to(dtype)
    angles = torch.randn(tokens, dim // 2, generator=seeded).repeat(1, 2) * 100
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    out = torch.empty_like(keys)
    reference.rotate(keys, cos, sin, out)
    assert torch.equal(out, apply_rotary_pos_emb(keys[None], keys[None], cos[None], sin[None])[1][0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rank", [0, 1, 7, 16])
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_add_patch_rounds_once(
    shape: tuple[int, int, int], rank: int, dtype: torch.dtype, seeded: torch.Generator
) -> None:
    """Against float64, head by head: at most one rounding of the result, and float32's own error in the sum."""
    heads, tokens, dim = shape
    states = [torch.randn(shape, generator=seeded).to(dtype) for _ in range(2)]
    u = torch.randn(tokens, rank, generator=seeded).to(dtype)
    v = torch.randn(rank, 2 * heads * dim, generator=seeded).to(dtype)
    patched = [state.clone() for state in states]
    reference.add_patch(*patched, u, v)
    for which, (before, after) in enumerate(zip(states, patched, strict=True)):
        for head in range(heads):
            columns = slice((which * heads + head) * dim, (which * heads + head + 1) * dim)
            exact = before[head].double() + u.double() @ v[:, columns].double()
            bound = torch.finfo(dtype).eps * exact.abs() + 1e-5
            assert bool(((after[head].double() - exact).abs() <= bound).all())


def test_every_device_finds_kernels() -> None:
    kernels = kernels_for(torch.device("cpu"))
    assert kernels.rotate is reference.rotate
    assert kernels.add_patch is reference.add_patch
