"""The eager twins against Hugging Face's rotary functions and float64 arithmetic."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from kernel_cases import BF16, FP16, FP32, Case, check_keys, check_states, check_untouched, rebuild, relocate
from transformers.models.cohere2 import modeling_cohere2
from transformers.models.glm4v import modeling_glm4v
from transformers.models.phi3 import modeling_phi3
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen3_vl import modeling_qwen3_vl
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

from kamera_agent.runtime.kernels import reference
from kamera_agent.runtime.kernels.dispatch import EAGER, kernels_for
from kamera_agent.runtime.kernels.reference import Pairs

DTYPES = [FP32, BF16, FP16]
SHAPES = [(1, 1, 32), (2, 63, 64), (3, 217, 80), (8, 100, 128), (2, 1196, 16)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("apply", "pairs", "turning"),
    [
        (modeling_qwen2_5_vl.apply_rotary_pos_emb, "half", 1.0),
        (modeling_phi3.apply_rotary_pos_emb, "half", 0.5),
        (modeling_glm4v.apply_rotary_pos_emb, "interleaved", 0.5),
    ],
    ids=["qwen2_5_vl", "phi3", "glm4v"],
)
def test_rotate_has_the_bits_of_the_models_own(
    apply: Any, pairs: Pairs, turning: float, shape: tuple[int, int, int], dtype: torch.dtype, seeded: torch.Generator
) -> None:
    _, tokens, dim = shape
    keys = torch.randn(shape, generator=seeded).to(dtype)
    angles = 100 * torch.randn(tokens, int(dim * turning), generator=seeded)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    out = torch.empty_like(keys)
    reference.rotate(keys, cos, sin, out, pairs)
    assert torch.equal(out, apply(keys[None], keys[None], cos[None], sin[None])[1][0])


def test_interleaved_pairs_are_those_of_cohere(seeded: torch.Generator) -> None:
    keys = torch.randn(2, 63, 64, generator=seeded)
    angles = 100 * torch.randn(63, 64, generator=seeded)
    cos, sin = angles.cos(), angles.sin()
    out = torch.empty_like(keys)
    reference.rotate(keys, cos, sin, out, "interleaved")
    expected = modeling_cohere2.apply_rotary_pos_emb(keys[None], keys[None], cos[None], sin[None])[1][0]
    assert torch.equal(out, expected)


@pytest.mark.parametrize("layout", ["sectioned", "interleaved"])
def test_m_rope_is_a_matter_of_the_table(layout: str, seeded: torch.Generator) -> None:
    """Three axes with positions of their own, in both layouts of the frequencies: the model's table is enough."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32}
    rotary: Any
    if layout == "sectioned":
        module: Any = modeling_qwen2_5_vl
        rotary = module.Qwen2_5_VLRotaryEmbedding(Qwen2_5_VLTextConfig(**sizes, rope_parameters=rope))
    else:
        module = modeling_qwen3_vl
        rotary = module.Qwen3VLTextRotaryEmbedding(Qwen3VLTextConfig(**sizes, rope_parameters=rope))
    case = Case(BF16, 217, (3, 32), (3, 32), None, gaps=True)
    chunk = case.chunk(seeded)
    positions = torch.randint(0, 5000, (3, 1, 217), generator=seeded)
    cos, sin = rotary(torch.empty(0, dtype=BF16), positions)
    buffers = rebuild(EAGER, case, chunk._replace(cos=cos, sin=sin))
    keys = torch.stack([layer.keys for layer in chunk.base])
    assert torch.equal(buffers.keys[:, :, case.slot_list], module.apply_rotary_pos_emb(keys, keys, cos, sin)[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        {"ranks": (7, 0)},
        {"ranks": (16, 1), "pairs": "interleaved", "layers_turn_alike": False},
        {"ranks": None, "width": 24, "gaps": True},
        {"ranks": (64, 7), "int8_factors": True, "gaps": True},
        {"ranks": (0, 16), "int8_kv": True},
        {"ranks": None, "int8_kv": True, "gaps": True},
        {"values": (1, 512), "ranks": (7, 16)},
    ],
    ids=str,
)
@pytest.mark.parametrize("tokens", [1, 217])
def test_rebuild(dtype: torch.dtype, changes: dict[str, Any], tokens: int, seeded: torch.Generator) -> None:
    case = Case(**{"dtype": dtype, "tokens": tokens, "keys": (3, 80), "values": (3, 80), **changes})
    chunk = case.chunk(seeded)
    buffers = rebuild(EAGER, case, chunk)
    check_states(case, chunk, buffers)
    check_keys(case, chunk, buffers.masters, buffers.keys, rounded_products=True)
    check_untouched(case, *buffers)
    again = relocate(EAGER, case, chunk, buffers.masters)
    assert torch.equal(again.nan_to_num(), buffers.keys.nan_to_num())


def test_many_layers_are_turned_a_few_at_a_time(seeded: torch.Generator) -> None:
    """With more layers than one pass takes, and a table for each, every layer gets its own keys."""
    case = Case(FP32, 63, (2, 64), (2, 64), None, num_layers=40, layers_turn_alike=False)
    assert 2 * 63 * 64 * 4 * case.num_layers > reference.CACHE_BYTES
    chunk = case.chunk(seeded)
    buffers = rebuild(EAGER, case, chunk)
    keys = relocate(EAGER, case, chunk, buffers.masters)
    assert torch.equal(keys.nan_to_num(), buffers.keys.nan_to_num())


def test_the_cpu_runs_the_twins() -> None:
    assert kernels_for(torch.device("cpu")) is EAGER


def test_the_package_does_without_triton() -> None:
    """On a CPU the package does not import it, so it need not be installed."""
    blocked = "import sys; sys.modules['triton'] = None; import kamera_agent; kamera_agent.Kamera.pocket().close()"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
