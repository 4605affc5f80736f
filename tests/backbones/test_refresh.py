"""Stale spans whose tokens are computed again in a turn's pass, on every backbone, against plain forward passes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from models import max_error, screenshot
from rows import Row, named, rows
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from kamera_agent.chunk import Run, TextRun
from kamera_agent.runtime import refresh
from kamera_agent.runtime.engine import Engine, Partial, Placed, Prefilled, StaleSpan
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.slot_cache import cache_argument

FRONT, FIRST, SECOND = (screenshot(seed, *size) for seed, size in enumerate([(84, 154), (70, 98), (126, 84)]))
Choice = Callable[[torch.Tensor, int], torch.Tensor]


class Scene(NamedTuple):
    """Opening, an image that came in front, two that were computed without it, and a question, in their places.

    held: KV of the two images before the pass.
    """

    engine: Engine
    pool: KVPool
    placed: list[Placed]
    held: list[tuple[LayerKV, ...]]

    @property
    def num_layers(self) -> int:
        return len(self.engine.family.decoder.kinds)

    @property
    def runs(self) -> list[Run]:
        return [placed.run for placed in self.placed]

    def run(self, lacks: Sequence[bool] = (True, True)) -> Prefilled:
        stale = [StaleSpan(*span) for span in zip(self.placed[2:4], lacks, strict=True)]
        return self.engine.prefill(self.pool, self.placed[-1:], stale=stale)

    def kv(self) -> list[tuple[LayerKV, ...]]:
        return [self.pool.read(placed.slots) for placed in self.placed]


def laid_out(engine: Engine, pool: KVPool, runs: Sequence[Run]) -> list[Placed]:
    placed, position, order = [], 0, 0
    for run in runs:
        placed.append(Placed(run, pool.allocate(len(run.token_ids)), position, order))
        position, order = position + run.extent, order + len(run.token_ids)
    return placed


@pytest.fixture
def scene(row: Row) -> Scene:
    family = family_for(row.model, row.processor)
    if family.decoder.recurrence:
        pytest.skip("a recurrent state passes through its spans, so they are computed whole")
    engine = Engine(family, 1 << 26)
    opening = TextRun((*family.chat.anchor_ids, *family.tokens.encode("first")))
    question = TextRun(family.tokens.encode("what is it?"))
    front, first, second = (family.image_chunk(image, "default") for image in (FRONT, FIRST, SECOND))
    before = engine.new_pool()
    placed = laid_out(engine, before, [opening, first, second])
    engine.prefill(before, placed)
    held = [before.read(image.slots) for image in placed[1:]]
    pool = engine.new_pool()
    placed = laid_out(engine, pool, [opening, front, first, second, question])
    engine.prefill(pool, placed[:2])
    for image, kv in zip(placed[2:4], held, strict=True):
        engine.load(pool, image, kv, None)
    return Scene(engine, pool, placed, held)


def choosing(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    monkeypatch.setattr(refresh, "choose", choice)
    leaving(monkeypatch, math.inf, math.inf)


def leaving(monkeypatch: pytest.MonkeyPatch, left: float, left_lacking: float) -> None:
    """Set what a span may keep of what departs."""
    monkeypatch.setattr(refresh, "LEFT", left)
    monkeypatch.setattr(refresh, "LEFT_LACKING", left_lacking)


def bound(num_layers: int) -> float:
    """The budget; where that leaves too little, all of the first layers and 18 % of the tokens in the last."""
    first, second = refresh.stages(num_layers)
    least = (first + 0.36 * (second - first) + 0.18 * (num_layers - second)) / num_layers
    return max(least, refresh.BUDGET)


@pytest.mark.parametrize("num_layers", [5, 8, 16, 28, 64])
def test_the_first_choice_comes_after_two_layers_and_the_budget_holds_in_deep_models(num_layers: int) -> None:
    first, second = refresh.stages(num_layers)
    (more, share) = refresh.stages(num_layers).values()
    cost = (first + more * (second - first) + share * (num_layers - second)) / num_layers
    assert 2 <= first < second
    assert share >= 0.18
    assert cost == pytest.approx(bound(num_layers))
    assert num_layers < 16 or cost == pytest.approx(refresh.BUDGET)


def all_tokens(departures: torch.Tensor, num_tokens: int) -> torch.Tensor:
    return torch.arange(len(departures))


def no_tokens(departures: torch.Tensor, num_tokens: int) -> torch.Tensor:
    return torch.arange(0)


def every_third(departures: torch.Tensor, num_tokens: int) -> torch.Tensor:
    return torch.arange(0, len(departures), 3)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_all_tokens_are_a_full_prefill(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, all_tokens)
    expected = scene.engine.reference_logits(scene.runs)
    assert max_error(expected, scene.run().logits) <= 1e-4
    pool = scene.engine.new_pool()
    placed = laid_out(scene.engine, pool, scene.runs)
    scene.engine.prefill(pool, placed)
    assert_equal_kv([pool.read(there.slots) for there in placed], scene.kv(), 1e-4)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_no_tokens_leave_the_last_layers_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    choosing(monkeypatch, no_tokens)
    first = min(refresh.stages(scene.num_layers))
    scene.run()
    for held, kv in zip(scene.held, scene.kv()[2:4], strict=True):
        assert_equal_kv([held[first + 1 :]], [kv[first + 1 :]], 0)


@pytest.mark.parametrize("row", named("qwen2_vl", "qwen3_vl", "llava-mistral", "kimi_k25"), indirect=True)
@torch.no_grad()
def test_some_tokens_are_those_of_a_plain_pass(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference: token by token through plain Hugging Face, where after each token that was not chosen, the last
    layers of its cache take what the span held."""
    choosing(monkeypatch, every_third)
    first, second = refresh.stages(scene.num_layers)
    num_tokens = [len(placed.run.token_ids) for placed in scene.placed[2:4]]
    depths = torch.full((sum(num_tokens),), first)
    depths[::3] = second
    depths[::9] = scene.num_layers
    expected = token_by_token(scene, depths.split(num_tokens))
    prefilled = scene.run()
    assert max_error(expected, prefilled.logits) <= 1e-4
    assert torch.equal(torch.cat([span.depths for span in prefilled.refreshed]), depths)


@pytest.mark.parametrize("row", named("qwen2_vl", "qwen3_vl", "llava-mistral", "kimi_k25"), indirect=True)
@torch.no_grad()
def test_spans_of_which_some_tokens_are_computed(scene: Scene) -> None:
    """The reference is the same: what is not computed has its KV from what the span held, in all layers."""
    num_tokens = [len(placed.run.token_ids) for placed in scene.placed[2:4]]
    depths = [torch.full((number,), -1) for number in num_tokens]
    for of_span in depths:
        of_span[::3] = scene.num_layers
    expected = token_by_token(scene, depths)
    partial = [
        Partial(placed, range(0, number, 3)) for placed, number in zip(scene.placed[2:4], num_tokens, strict=True)
    ]
    prefilled = scene.engine.prefill(scene.pool, scene.placed[-1:], partial=partial)
    assert max_error(expected, prefilled.logits) <= 1e-4


@pytest.mark.parametrize("row", named("qwen2_vl"), indirect=True)
def test_the_budget_holds_for_all_spans_together(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving(monkeypatch, math.inf, math.inf)
    num_layers = scene.num_layers
    depths = torch.cat([span.depths for span in scene.run().refreshed])
    assert 0.9 * bound(num_layers) <= depths.sum() / (num_layers * len(depths)) <= bound(num_layers)


@pytest.mark.parametrize("row", named("qwen2_vl"), indirect=True)
def test_a_span_that_would_keep_too_much_is_computed_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first span would keep more than the limit, the second less: the first then equals that of a full prefill, and
    the second keeps to the budget."""
    full = full_kv(scene)
    kept = what_they_keep(scene, full)
    leaving(monkeypatch, math.inf, sum(kept) / 2)
    num_layers = scene.num_layers
    spans = scene.run().refreshed
    assert kept[0] > kept[1]
    assert spans[0].computed(num_layers) == 1
    assert spans[1].computed(num_layers) <= bound(num_layers)
    assert_equal_kv([full[2]], [scene.kv()[2]], 1e-4)


@pytest.mark.parametrize("row", named("qwen2_vl"), indirect=True)
def test_spans_may_keep_less_where_one_lacks_something(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving(monkeypatch, math.inf, 0)
    assert all(span.computed(scene.num_layers) == 1 for span in scene.run(lacks=(False, True)).refreshed)


@pytest.mark.parametrize("row", named("qwen2_vl"), indirect=True)
def test_spans_may_keep_more_where_chunks_are_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving(monkeypatch, math.inf, 0)
    assert all(span.computed(scene.num_layers) < 1 for span in scene.run(lacks=(False, False)).refreshed)


def full_kv(scene: Scene) -> list[tuple[LayerKV, ...]]:
    """KV of all runs of a scene, computed at once in another pool."""
    pool = scene.engine.new_pool()
    placed = laid_out(scene.engine, pool, scene.runs)
    scene.engine.prefill(pool, placed)
    return [pool.read(there.slots) for there in placed]


def what_they_keep(scene: Scene, full: Sequence[Sequence[LayerKV]]) -> list[float]:
    """Per image, what the tokens that depart least depart by before the first choice: the mean over the image, summed
    over the layers that follow, from one to the next in proportion to the depth."""
    num_layers = scene.num_layers
    first, share = next(iter(refresh.stages(num_layers).items()))
    departures = torch.stack([departing(scene, full, layer) for layer in range(first + 1)])
    lengths = [len(placed.run.token_ids) for placed in scene.placed[2:4]]
    left = []
    for span in departures.split(lengths, dim=1):
        least = span.sum(0).argsort()[: span.shape[1] - int(share * span.shape[1])]
        left.append(float(span[first, least].sum()) / span.shape[1] * sum(range(first, num_layers)) / first)
    return left


def departing(scene: Scene, full: Sequence[Sequence[LayerKV]], layer: int) -> torch.Tensor:
    """By how much the KV of the images' tokens departs in a layer, squared and relative to the mean, K and V alike."""
    held, now = ([kv[layer] for kv in spans] for spans in (scene.held, full[2:4]))
    total = torch.zeros(())
    for name in ("keys", "values"):
        before, after = (torch.cat([getattr(kv, name) for kv in spans], dim=1) for spans in (held, now))
        total = total + (after - before).square().sum((0, 2)) / before.square().sum((0, 2)).mean()
    return total


class Reads(TorchDispatchMode):
    """Counts what makes a GPU wait: numbers that are read from it, and selections by a mask, whose size is read."""

    num = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if function.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_) else ()
        masks = any(index is not None and index.dtype is torch.bool for index in indices)
        self.num += masks or function.overloadpacket is torch.ops.aten._local_scalar_dense
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("row", named("qwen2_vl"), indirect=True)
def test_the_choice_of_tokens_reads_nothing_from_the_device(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads()
    for name in ("before", "after"):
        hook = getattr(refresh.Refresh, name)

        def counted(*args: Any, hook: Any = hook) -> Any:
            with reads:
                return hook(*args)

        monkeypatch.setattr(refresh.Refresh, name, counted)
    assert all(span.depths.any() for span in scene.run().refreshed)
    assert reads.num == 0


def token_by_token(scene: Scene, depths: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits [vocab] after the last token. depths: per token of the stale spans, the layers that are computed."""
    engine, pool = scene.engine, scene.pool
    family, text, cache = engine.family, engine.family.decoder.module, DynamicCache()
    [bank] = pool.banks
    keys, values = (bank.values, bank.keys) if bank.shape.values_first else (bank.keys, bank.values)
    keys, values = keys.clone(), values.clone()
    for number, placed in enumerate(scene.placed):
        embeds, positions = engine.embed(placed.run), family.positions(placed.run, placed.position)
        slots = [slot for part in placed.slots.ranges for slot in part]
        for token, slot in enumerate(slots):
            inputs, extras = family.unpack(embeds[None, token : token + 1])
            where = positions[:, token : token + 1]
            hidden = text(
                inputs_embeds=inputs,
                position_ids=where[:, None] if len(where) > 1 else where,
                **{cache_argument(text): cache},
                **extras,
            ).last_hidden_state
            if number in (2, 3):
                for layer in range(int(depths[number - 2][token]) + 1, scene.num_layers):
                    cache.layers[layer].keys[0, :, -1] = keys[layer, :, slot]
                    cache.layers[layer].values[0, :, -1] = values[layer, :, slot]
    return family.logits(hidden[0, -1])


def assert_equal_kv(
    expected: Sequence[Sequence[LayerKV]], found: Sequence[Sequence[LayerKV]], tolerance: float
) -> None:
    for span, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        for layer, (kv, other) in enumerate(zip(theirs, ours, strict=True)):
            assert max_error(kv.keys, other.keys) <= tolerance, f"keys of span {span}, layer {layer}"
            assert max_error(kv.values, other.values) <= tolerance, f"values of span {span}, layer {layer}"
