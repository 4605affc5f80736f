import pytest
import torch

from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.kernels.reference import expanded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nothing_is_off_by_more_than_half_a_step(dtype: torch.dtype, seeded: torch.Generator) -> None:
    """A component of K and a token of V that are a thousand times larger cost the others no precision."""
    keys, values = (torch.randn(3, 63, dim, generator=seeded).to(dtype) for dim in (16, 40))
    keys[:, :, 5] *= 1000
    values[:, 7] *= 1000
    layer = compressed(LayerKV(keys, values))
    key_step, value_step = layer.key_steps, layer.value_steps
    assert key_step is not None
    assert value_step is not None
    assert layer.keys.dtype is layer.values.dtype is torch.int8
    assert (key_step.shape, value_step.shape) == ((3, 1, 16), (3, 63, 1))
    assert torch.equal(key_step, keys.float().abs().amax(1, keepdim=True) / 127)
    assert torch.equal(value_step, values.float().abs().amax(2, keepdim=True) / 127)
    wide = expanded(layer)
    assert bool(((wide.keys - keys.float()).abs() <= 0.5001 * key_step).all())
    assert bool(((wide.values - values.float()).abs() <= 0.5001 * value_step).all())


def test_zeros_stay_zeros() -> None:
    zeros = torch.zeros(1, 5, 8)
    layer = expanded(compressed(LayerKV(zeros, zeros)))
    assert not layer.keys.any()
    assert not layer.values.any()
