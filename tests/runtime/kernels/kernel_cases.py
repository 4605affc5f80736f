"""Chunks of awkward shapes, and the errors that kernels may make on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
FP32_ULP = torch.finfo(torch.float32).eps


class Buffers(NamedTuple):
    """Pool buffers [L, H, S, D], full of NaN."""

    masters: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Case:
    """One chunk, and the slots that it goes to.

    keys, values: (heads, components). ranks: one a layer; None for no patch. width: components that turn, all by
    default. gaps: whether the slots lie in several ranges. layers_turn_alike: one table for all layers.
    """

    dtype: torch.dtype
    tokens: int
    keys: tuple[int, int]
    values: tuple[int, int]
    ranks: tuple[int, ...] | None = None
    num_layers: int = 2
    pairs: Pairs = "half"
    width: int = 0
    gaps: bool = False
    layers_turn_alike: bool = True
    int8_kv: bool = False
    int8_factors: bool = False

    def __str__(self) -> str:
        parts = [f"{str(self.dtype).removeprefix('torch.')}-{self.tokens}x{self.keys[0]}x{self.keys[1]}"]
        parts += [f"v{self.values[0]}x{self.values[1]}"] if self.values != self.keys else []
        parts += ["blind" if self.ranks is None else "rank" + "_".join(map(str, self.ranks)), self.pairs]
        flags = {
            "partial": self.width,
            "gaps": self.gaps,
            "tables": not self.layers_turn_alike,
            "int8_kv": self.int8_kv,
            "int8_factors": self.int8_factors,
        }
        return "-".join(parts + [name for name, is_set in flags.items() if is_set])

    @property
    def slots(self) -> Slots:
        """Slots that do not begin at 0; with gaps, in two ranges of which the later comes first."""
        half = self.tokens // 2
        if self.gaps and half:
            return Slots((range(self.tokens + 2, self.tokens + 2 + half), range(3, 3 + self.tokens - half)))
        return Slots((range(3, 3 + self.tokens),))

    @property
    def slot_list(self) -> list[int]:
        return [slot for part in self.slots.ranges for slot in part]

    @property
    def num_slots(self) -> int:
        return 2 * self.tokens + 5

    def buffers(self, device: str = "cpu") -> Buffers:
        sizes = [(self.num_layers, heads, self.num_slots, dim) for heads, dim in (self.keys, self.keys, self.values)]
        return Buffers(*(torch.full(size, float("nan"), dtype=self.dtype, device=device) for size in sizes))

    def chunk(self, generator: torch.Generator, device: str = "cpu") -> "Chunk":
        def normal(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator).to(self.dtype).to(device)

        def whole(*size: int) -> torch.Tensor:
            return torch.randint(-127, 128, size, generator=generator, dtype=torch.int8).to(device)

        def steps(*size: int) -> torch.Tensor:
            return (torch.rand(size, generator=generator) / 64).to(device)

        (key_heads, key_dim), (value_heads, value_dim) = self.keys, self.values
        sizes = (key_heads, self.tokens, key_dim), (value_heads, self.tokens, value_dim)
        numbers = key_heads * key_dim + value_heads * value_dim
        make = whole if self.int8_kv else normal
        base = [LayerKV(*(make(*size) for size in sizes)) for _ in range(self.num_layers)]
        if self.int8_kv:
            step_sizes = (key_heads, 1, key_dim), (value_heads, self.tokens, 1)
            base = [LayerKV(kv.keys, kv.values, *(steps(*size) for size in step_sizes)) for kv in base]
        factors = None
        if self.ranks is not None:
            make = whole if self.int8_factors else normal
            factors = [Factors(make(self.tokens, rank), make(rank, numbers)) for rank in self.ranks]
            if self.int8_factors:
                factors = [uv._replace(scale=steps(rank) / 64) for uv, rank in zip(factors, self.ranks, strict=True)]
        width = self.width or key_dim
        tables = 1 if self.layers_turn_alike else self.num_layers
        # The components of a pair differ: a kernel must take each from the table.
        angles = 100 * torch.randn(tables, self.tokens, width, generator=generator)
        return Chunk(base, factors, angles.cos().to(self.dtype).to(device), angles.sin().to(self.dtype).to(device))


class Chunk(NamedTuple):
    """Arguments of reference.rebuild."""

    base: Sequence[LayerKV]
    factors: Sequence[Factors] | None
    cos: torch.Tensor
    sin: torch.Tensor


def rebuild(kernels: Any, case: Case, chunk: Chunk, device: str = "cpu") -> Buffers:
    """The chunk, rebuilt in fresh buffers."""
    buffers = case.buffers(device)
    kernels.rebuild(*buffers, case.slots, *chunk, case.pairs)
    return buffers


def relocate(kernels: Any, case: Case, chunk: Chunk, masters: torch.Tensor) -> torch.Tensor:
    """Fresh keys, turned from the masters."""
    keys = torch.full_like(masters, float("nan"))
    kernels.relocate(masters, keys, case.slots, chunk.cos, chunk.sin, case.pairs)
    return keys


def exact_states(case: Case, chunk: Chunk) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For K, then V: the exact sums [L, H, T, D] in float64, and the sums of the magnitudes of their terms."""
    results = []
    keys = [(layer.keys, layer.key_steps) for layer in chunk.base]
    values = [(layer.values, layer.value_steps) for layer in chunk.base]
    for kv, (heads, dim), first in ((keys, case.keys, 0), (values, case.values, case.keys[0] * case.keys[1])):
        states = torch.stack([state.double() if step is None else state.double() * step for state, step in kv])
        exact, magnitudes = states.clone(), states.abs()
        for layer, (u, v, scale) in enumerate(chunk.factors or ()):
            left = u.double() if scale is None else u.double() * scale
            right = v.double()[:, first : first + heads * dim]
            exact[layer] += (left @ right).unflatten(1, (heads, dim)).transpose(0, 1)
            magnitudes[layer] += (left.abs() @ right.abs()).unflatten(1, (heads, dim)).transpose(0, 1)
        results.append((exact, magnitudes))
    return results


def check_states(case: Case, chunk: Chunk, buffers: Buffers, product_error: float = 0.0) -> None:
    """Masters and values are the exact sums, rounded once to the dtype; where nothing is added, the same bits.

    A sum of n float32 terms in any order errs by (n - 1) rounding errors of the sum of their magnitudes at most. Each
    term is a product (one error), with int8 of three factors (two). The final rounding errs by half an ulp.
    product_error: further relative error of each product of factors.
    """
    terms = max(case.ranks or (0,)) + 1
    finfo = torch.finfo(case.dtype)
    for (exact, magnitudes), buffer in zip(exact_states(case, chunk), (buffers.masters, buffers.values), strict=True):
        actual = buffer[:, :, case.slot_list].double()
        if case.ranks is None and not case.int8_kv:
            assert torch.equal(actual, exact)
        sums = ((terms + 2) * FP32_ULP / 2 + product_error) * magnitudes
        bound = finfo.eps / 2 * (exact.abs() + sums) + sums + finfo.smallest_normal * finfo.eps
        assert_within(actual, exact, bound)


def check_keys(
    case: Case, chunk: Chunk, masters: torch.Tensor, keys: torch.Tensor, *, rounded_products: bool = False
) -> None:
    """Keys are the turned masters: products and sum in float32, rounded once.

    rounded_products: each product is rounded to the dtype, too, as the models and the eager twin do it.
    """
    width = case.width or case.keys[1]
    actual, states = (buffer[:, :, case.slot_list].double() for buffer in (keys, masters))
    cos, sin = chunk.cos.double()[:, None], chunk.sin.double()[:, None]
    turning, crossing = states[..., :width] * cos, partners(states[..., :width], case.pairs) * sin
    finfo = torch.finfo(case.dtype)
    ulp = finfo.eps / 2 if rounded_products else FP32_ULP
    exact, sums = turning + crossing, ulp * (turning.abs() + crossing.abs())
    bound = finfo.eps / 2 * (exact.abs() + sums) + sums + finfo.smallest_normal * finfo.eps
    assert_within(actual[..., :width], exact, bound)
    assert torch.equal(actual[..., width:], states[..., width:])


def partners(states: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """(-second, first) in place of (first, second), for every pair."""
    if pairs == "half":
        first, second = states.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)
    first, second = states[..., ::2], states[..., 1::2]
    return torch.stack([-second, first], dim=-1).flatten(-2)


def assert_within(actual: torch.Tensor, exact: torch.Tensor, bound: torch.Tensor) -> None:
    worst = ((actual - exact).abs() / bound).max() if actual.numel() else torch.zeros(())
    assert bool(worst <= 1), f"off by {float(worst):.3g} of what rounding allows"


def check_untouched(case: Case, *buffers: torch.Tensor) -> None:
    """All other slots are still NaN."""
    others = sorted({*range(case.num_slots)} - {*case.slot_list})
    for buffer in buffers:
        assert bool(buffer[:, :, others].isnan().all())


def check_all(case: Case, chunk: Chunk, kernels: Any, device: str = "cpu", product_error: float = 0.0) -> Buffers:
    """Check a rebuild, and that relocating from its masters gives the same keys, bit for bit."""
    buffers = rebuild(kernels, case, chunk, device)
    check_states(case, chunk, buffers, product_error)
    check_keys(case, chunk, buffers.masters, buffers.keys)
    check_untouched(case, *buffers)
    again = relocate(kernels, case, chunk, buffers.masters)
    assert torch.equal(again.nan_to_num(), buffers.keys.nan_to_num())
    check_untouched(case, again)
    return buffers


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
    # A base and factors in int8.
    Case(FP32, 63, (2, 64), (2, 64), (7, 16), int8_kv=True, int8_factors=True, gaps=True),
    Case(BF16, 100, (3, 80), (3, 80), (16, 0), int8_kv=True, width=64),
    Case(FP16, 217, (1, 128), (1, 128), (1, 64), int8_factors=True),
    Case(BF16, 63, (1, 64), (1, 512), (16, 7), int8_kv=True, int8_factors=True, pairs="interleaved"),
    Case(FP32, 100, (2, 32), (2, 32), None, int8_kv=True),
]
