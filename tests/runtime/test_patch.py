"""Patches against a full SVD of the same difference."""

import itertools

import pytest
import torch

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError
from kamera_agent.runtime.kernels.layers import LayerKV, tensors_of
from kamera_agent.runtime.patch import Patch, fit

SHAPES = [(1, 2, 4), (7, 1, 4), (63, 2, 16), (217, 3, 8), (100, 2, 64)]
NUM_LAYERS = 3


def random_kv(tokens: int, heads: int, dim: int, generator: torch.Generator) -> list[LayerKV]:
    def states() -> torch.Tensor:
        return torch.randn(heads, tokens, dim, generator=generator)

    return [LayerKV(states(), states()) for _ in range(NUM_LAYERS)]


def add(kv: list[LayerKV], change: list[LayerKV]) -> list[LayerKV]:
    return [LayerKV(one.keys + other.keys, one.values + other.values) for one, other in zip(kv, change, strict=True)]


def matrix(layer: LayerKV) -> torch.Tensor:
    """[T, 2·H·D] in float64, head by head: the columns of K, then those of V."""
    columns = [states[head] for states in (layer.keys, layer.values) for head in range(len(states))]
    return torch.cat(columns, dim=1).double()


def left_over(patch: Patch, change: list[LayerKV]) -> list[torch.Tensor]:
    products = []
    for u, v, scale in patch.factors:
        steps = torch.ones(u.shape[1]) if scale is None else scale
        products.append(torch.einsum("tr,r,rw->tw", u.double(), steps.double(), v.double()))
    return [matrix(layer) - product for layer, product in zip(change, products, strict=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 8, 32])
def test_truncation_is_the_best_of_its_rank(shape: tuple[int, int, int], rank: int, seeded: torch.Generator) -> None:
    """Eckart and Young: no matrix of that rank comes nearer than the truncated SVD."""
    tokens, heads, dim = shape
    base, change = random_kv(*shape, seeded), random_kv(*shape, seeded)
    largest = min(tokens, 2 * heads * dim)
    if rank > largest:
        with pytest.raises(SettingError, match=f"above {largest}"):
            fit(add(base, change), base, Settings(rank=rank))
        return
    patch = fit(add(base, change), base, Settings(rank=rank))
    assert patch.ranks == (rank,) * NUM_LAYERS
    total, tail = 0.0, 0.0
    for index, (layer, rest) in enumerate(zip(change, left_over(patch, change), strict=True)):
        spectrum = torch.linalg.svdvals(matrix(layer)).square()
        best = float(spectrum[rank:].sum())
        whole = float(spectrum.sum())
        assert float(rest.square().sum()) <= 1.001 * best + 1e-8 * whole
        assert patch.energy[index] == pytest.approx(1 - best / whole, abs=1e-4)
        norm = matrix(add(base, change)[index]).norm()
        assert patch.norm[index] == pytest.approx(float(matrix(layer).norm() / norm), rel=1e-4)
        total, tail = total + whole, tail + float(rest.square().sum())
    assert patch.error == pytest.approx((tail / total) ** 0.5, rel=1e-3, abs=1e-6)


def test_full_rank_loses_nothing(seeded: torch.Generator) -> None:
    for shape in SHAPES:
        base, change = random_kv(*shape, seeded), random_kv(*shape, seeded)
        patch = fit(add(base, change), base, Settings(rank=min(shape[0], 2 * shape[1] * shape[2])))
        assert all(float(rest.abs().max()) < 1e-4 for rest in left_over(patch, change))


def test_nothing_lost_is_nothing_patched(seeded: torch.Generator) -> None:
    kv = random_kv(63, 2, 16, seeded)
    patch = fit(kv, kv, Settings(rank="auto"))
    assert patch.ranks == (0,) * NUM_LAYERS
    assert (patch.energy, patch.error, patch.norm) == ((1.0,) * NUM_LAYERS, 0.0, (0.0,) * NUM_LAYERS)


def decaying(tokens: int, heads: int, dim: int, generator: torch.Generator) -> list[LayerKV]:
    """Differences whose spectra fall at different speeds, so that each layer needs another rank."""
    layers = []
    for layer in range(NUM_LAYERS):
        width = 2 * heads * dim
        u = torch.linalg.qr(torch.randn(tokens, width, generator=generator))[0]
        v = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        spread = (layer + 1) * torch.exp(-torch.arange(width) / (2.0 + 4 * layer))
        parts = (u * spread) @ v
        keys, values = parts.view(tokens, 2, heads, dim).permute(1, 2, 0, 3)
        layers.append(LayerKV(keys.contiguous(), values.contiguous()))
    return layers


@pytest.mark.parametrize("error_budget", [0.5, 0.1, 0.02])
def test_auto_takes_the_smallest_rank_within_the_error_budget(error_budget: float, seeded: torch.Generator) -> None:
    kv, change = random_kv(100, 2, 8, seeded), decaying(100, 2, 8, seeded)
    settings = Settings(rank="auto", error_budget=error_budget, byte_budget=1.0)
    ranks = fit(add(kv, change), kv, settings).ranks
    assert len(set(ranks)) > 1
    for rank, layer in zip(ranks, change, strict=True):
        spectrum = torch.linalg.svdvals(matrix(layer)).square()
        errors = [float((spectrum[r:].sum() / spectrum.sum()).sqrt()) for r in (rank - 1, rank)]
        assert errors[0] > error_budget >= errors[1]


def test_auto_keeps_what_captures_most_within_the_byte_budget(seeded: torch.Generator) -> None:
    """Brute force: all components of all layers in one list, strongest first, as many as the bytes allow."""
    kv, change = random_kv(100, 2, 8, seeded), decaying(100, 2, 8, seeded)
    settings = Settings(rank="auto", error_budget=0.001, byte_budget=0.1)
    patch = fit(add(kv, change), kv, settings)
    num_bytes = sum(factor.nbytes for factors in patch.factors for factor in tensors_of(factors))
    allowed = 0.1 * NUM_LAYERS * 100 * 32 * 4
    assert allowed - (100 + 32 + 4) < num_bytes <= allowed
    spectra = [torch.linalg.svdvals(matrix(layer)).tolist() for layer in change]
    strongest = sorted(((value, layer) for layer, values in enumerate(spectra) for value in values), reverse=True)
    kept = [layer for _, layer in strongest[: sum(patch.ranks)]]
    assert patch.ranks == tuple(kept.count(layer) for layer in range(NUM_LAYERS))


def test_factors_have_the_dtype_of_the_kv_and_the_error_counts_their_rounding(seeded: torch.Generator) -> None:
    kv = [LayerKV(k.bfloat16(), v.bfloat16()) for k, v, *_ in random_kv(63, 2, 16, seeded)]
    conditioned = [LayerKV(k * 2, v * 2) for k, v, *_ in kv]
    patch = fit(conditioned, kv, Settings(rank=63))
    assert {factor.dtype for factors in patch.factors for factor in tensors_of(factors)} == {torch.bfloat16}
    change = [LayerKV(k.float(), v.float()) for k, v, *_ in kv]
    rest = torch.stack(left_over(patch, change)).norm() / torch.stack([matrix(layer) for layer in change]).norm()
    assert 1e-5 < patch.error == pytest.approx(float(rest), rel=1e-2)


def test_auto_rounds_to_int8_with_half_a_step_of_error_at_most(seeded: torch.Generator) -> None:
    """Each factor has 127 steps, so in each component the product errs by about 1/127 of its largest number."""
    kv, change = random_kv(100, 2, 8, seeded), decaying(100, 2, 8, seeded)
    conditioned = add(kv, change)
    auto = fit(conditioned, kv, Settings(rank="auto", error_budget=1e-6, byte_budget=1.0))
    whole = fit(conditioned, kv, Settings(rank=32))
    assert {layer.u.dtype for layer in auto.factors} == {layer.v.dtype for layer in auto.factors} == {torch.int8}
    for rounded, rest, (u, v, _) in zip(left_over(auto, change), left_over(whole, change), whole.factors, strict=True):
        largest = u.abs().amax(0) * v.abs().amax(1)
        assert float((rounded - rest).abs().max()) <= float(largest.sum()) * (1 / 127 + 1 / 4 / 127**2)
    total = torch.stack([matrix(layer) for layer in change]).norm()
    assert auto.error == pytest.approx(float(torch.stack(left_over(auto, change)).norm() / total), rel=1e-2)
    assert 1e-4 < auto.error < 2e-2


def test_error_falls_with_every_rank(seeded: torch.Generator) -> None:
    kv, change = random_kv(63, 2, 16, seeded), random_kv(63, 2, 16, seeded)
    errors = [fit(add(kv, change), kv, Settings(rank=rank)).error for rank in range(1, 64)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
