"""Attention in parts against the formula, over pools with scattered spans."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kamera_agent.runtime.attention import attend
from kamera_agent.runtime.bank import Heads, KVShape
from kamera_agent.runtime.families.decoder import FULL, SLIDING
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import FREE, KVPool
from kamera_agent.runtime.sight import make_groups

CPU = torch.device("cpu")
NUM_HEADS, NUM_KEY_HEADS, DIM = 6, 2, 8
# Lengths of spans: such that runs are short and long, and neighbours join or do not.
LENGTHS = (1, 2, 5, 31, 40, 70)
# fp32: rounding of sums. bf16: twice what rounding the outputs to it costs.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-6}


def decoder(dtype: torch.dtype = torch.float32, window: int = 45, both_ways: bool = True) -> Any:
    heads = Heads(NUM_KEY_HEADS, DIM)
    return SimpleNamespace(
        kinds=(FULL, SLIDING),
        both_ways_kinds=(FULL, SLIDING) if both_ways else (),
        window_tokens=window,
        device=CPU,
        dtype=dtype,
        shapes=[KVShape((0, 1), FULL, heads, heads, dtype, CPU)],
    )


@st.composite
def windows(draw: st.DrawFn) -> tuple[KVPool, Slots]:
    """A pool whose spans are in another order than their slots, with free slots between, and some spans to compute.

    Spans are computed in the order of the window, or those of its beginning after the others.
    """
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=12))
    pool = KVPool(decoder().shapes)
    spans = [pool.allocate(length) for length in lengths]
    orders = draw(st.permutations(range(len(spans))))
    num_free = draw(st.integers(0, len(spans) - 1))
    for number in orders[:num_free]:
        pool.free(spans[number])
    order, placed = 0, []
    for number in orders[num_free:]:
        both_ways = torch.rand(lengths[number]) < 0.7 if draw(st.booleans()) else None
        pool.place(spans[number], order, both_ways)
        order += lengths[number]
        placed.append(spans[number])
    chosen = [span for span in placed if draw(st.booleans())] or placed[-1:]
    middle = draw(st.sampled_from([0, len(chosen) // 2]))
    computed = [*chosen[middle:], *chosen[:middle]]
    return pool, Slots(tuple(part for span in computed for part in span.ranges))


def sees(kind: str, window: int, both_ways: bool, query: tuple[int, int], key: tuple[int, int]) -> bool:
    """The rule, for (order, block) of one query and one key."""
    in_block = both_ways and query[1] == key[1] != -1
    near = kind == FULL or query[0] - key[0] < window
    return key[0] != FREE and near and (key[0] <= query[0] or in_block)


def by_formula(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor, scale: float
) -> torch.Tensor:
    """Softmax attention in float64 with copies of the heads, over the keys that seen [Q, S] marks."""
    group = len(query) // len(key)
    keys, values = (states.double().repeat_interleave(group, 0) for states in (key, value))
    scores = (query.double() @ keys.mT * scale).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ values


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", [FULL, SLIDING])
@given(window=windows(), both_ways=st.booleans(), num_dropped=st.sampled_from([0, 3]))
@settings(max_examples=60, deadline=None)
def test_parts_are_the_whole(
    kind: str, dtype: torch.dtype, window: tuple[KVPool, Slots], both_ways: bool, num_dropped: int
) -> None:
    """1. Make groups of the queries, and attend part by part. 2. Compare with the formula over what the rule says.

    num_dropped: of every so many rows one is not computed, as in a refresh.
    """
    pool, slots = window
    index = torch.arange(pool.capacity)[slots.index(CPU)]
    if num_dropped and len(index) > num_dropped:
        index = index[torch.arange(len(index)) % num_dropped != 0]
    else:
        index = slots.index(CPU)
    model = decoder(dtype, both_ways=both_ways)
    places = list(zip(pool.order.tolist(), pool.block.tolist(), strict=True))
    rows = torch.arange(pool.capacity)[index].tolist()
    seen = torch.tensor([[sees(kind, 45, both_ways, places[row], key) for key in places] for row in rows])
    generator = torch.Generator().manual_seed(len(rows))
    query, key, value = (
        torch.randn(heads, num, DIM, generator=generator).to(dtype)
        for heads, num in ((NUM_HEADS, len(rows)), *[(NUM_KEY_HEADS, pool.capacity)] * 2)
    )
    groups = make_groups(model, kind, pool, index, CPU)
    assert [row for group in groups for row in range(len(rows))[group.rows]] == [*range(len(rows))]
    output = attend(query, key, value, groups, scale=0.3)
    assert output.dtype == dtype
    expected = by_formula(query, key, value, seen, 0.3)
    assert float((output.double() - expected).abs().max()) <= TOLERANCE[dtype] * float(value.abs().max())


def in_order(num_tokens: int, *, hole: int = 0) -> KVPool:
    """A pool with a window of num_tokens, and free slots after the first ten."""
    pool = KVPool(decoder().shapes)
    first, gap, rest = (pool.allocate(num) for num in (10, hole, num_tokens - 10))
    pool.free(gap)
    pool.place(first, 0)
    pool.place(rest, 10)
    return pool


def parts(pool: KVPool, start: int, stop: int, kind: str = FULL, window: int = 10**6) -> list[tuple[Any, ...]]:
    """For the queries in these slots: per part of the only group, (slots, whether there is a mask, is_causal)."""
    [group] = make_groups(decoder(window=window), kind, pool, slice(start, stop), CPU)
    return [(part.columns, part.mask is not None, part.is_causal) for part in group.parts]


@pytest.mark.parametrize("kind", [FULL, SLIDING])
def test_tokens_at_the_end_need_no_mask(kind: str) -> None:
    pool = in_order(200)
    assert parts(pool, 0, 200, kind) == [(slice(0, 200), False, True)]
    assert parts(pool, 150, 200, kind) == [(slice(0, 150), False, False), (slice(150, 200), False, True)]
    assert parts(pool, 199, 200, kind) == [(slice(0, 200), False, False)]


def test_one_token_of_a_sliding_layer_needs_no_mask() -> None:
    assert parts(in_order(200), 199, 200, SLIDING, 45) == [(slice(155, 200), False, False)]


def test_free_slots_are_masked_where_a_copy_takes_longer() -> None:
    """A few queries attend to a view with a hole in it, many to a copy without."""
    pool = in_order(1000, hole=300)
    [few], [many] = (make_groups(decoder(), FULL, pool, slice(start, 1300), CPU) for start in (1290, 700))
    view, copied = few.parts[0], many.parts[0]
    assert view.columns == slice(0, 1290)
    assert view.mask is not None
    assert (view.mask[0] == 0).tolist() == [True] * 10 + [False] * 300 + [True] * 980
    assert copied.columns.tolist() == [*range(10), *range(310, 700)]
    assert copied.mask is None


def test_a_scattered_span_has_a_mask_over_itself_only() -> None:
    """A third of the tokens 300 to 400 of a window: no mask over what is before them."""
    pool = in_order(500)
    index = torch.arange(300, 400, 3)
    [group] = make_groups(decoder(), FULL, pool, index, CPU)
    before, around = group.parts
    assert (before.columns, before.mask) == (slice(0, 301), None)
    assert around.columns == slice(301, 400)
    assert around.mask is not None
    assert around.mask.shape == (34, 99)


def test_many_groups_are_one() -> None:
    pool = in_order(2000)
    index = torch.arange(0, 2000, 100)
    assert len(make_groups(decoder(), FULL, pool, index, CPU)) == 1


@pytest.mark.parametrize("value_dim", [8, 5], ids=["even", "latent"])
@pytest.mark.parametrize("num_queries", [1, 7, 300])
def test_the_formula_joins_what_the_operators_give(num_queries: int, value_dim: int) -> None:
    """Heads of K and V of two sizes, as in multi-head latent attention, in blocks of queries."""
    pool = in_order(400)
    index = slice(400 - num_queries, 400)
    query, key, value = torch.randn(6, num_queries, 8), torch.randn(2, 400, 8), torch.randn(2, 400, value_dim)
    output = attend(query, key, value, make_groups(decoder(), FULL, pool, index, CPU), None)
    seen = torch.ones(num_queries, 400).tril(400 - num_queries).bool()
    assert output.shape == (6, num_queries, value_dim)
    assert float((output.double() - by_formula(query, key, value, seen, 8**-0.5)).abs().max()) <= 5e-6


@pytest.mark.parametrize("name", ["_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"])
def test_operators_return_the_log_sum_second(name: str) -> None:
    schema = getattr(torch.ops.aten, name).default._schema
    assert [result.name for result in schema.returns][:2] == ["output", "logsumexp"]
    named = {argument.name for argument in schema.arguments}
    assert {"query", "key", "value", "is_causal", "scale"} <= named
    assert ("attn_mask" in named) == name.endswith("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("num_queries", [1, 9, 300])
def test_on_a_gpu(dtype: torch.dtype, num_queries: int) -> None:
    """The operators of CUDA against those of the CPU, over the whole window and over one with a hole."""
    device = torch.device("cuda")
    for hole in (0, 100):
        pool = in_order(700, hole=hole)
        index = slice(hole + 700 - num_queries, hole + 700)
        query, key, value = (
            torch.randn(heads, num, 64).to(dtype) for heads, num in ((6, num_queries), *[(2, pool.capacity)] * 2)
        )
        on_cpu = decoder(dtype)
        on_gpu = SimpleNamespace(**vars(on_cpu) | {"device": device})
        expected = attend(query, key, value, make_groups(on_cpu, FULL, pool, index, CPU), None)
        groups = make_groups(on_gpu, FULL, pool, index, on_gpu.device)
        output = attend(query.to(device), key.to(device), value.to(device), groups, None).cpu()
        assert float((output.float() - expected.float()).abs().max()) <= (2e-2 if dtype == torch.bfloat16 else 2e-6)
