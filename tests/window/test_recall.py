"""Recall and relocation against full prefill: exact at full rank, better with every rank, worst blind."""

import itertools
from typing import Any

import pytest
import torch
from huggingface import CACHE_ARGUMENT, Conversation, turn_keys
from models import TINY, MakeKamera, kl, max_error, screenshot
from transformers import DynamicCache

from kamera_agent import Kamera, Window
from kamera_agent.chunk import TextRun
from kamera_agent.pocket.model import PocketProcessor, build_model
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.kernels.slots import Slots

NUM_IMAGES = 4
FULL_RANK = 26


def see_all(kamera: Kamera) -> Window:
    window = kamera.window()
    for i in range(NUM_IMAGES):
        window.add_image(screenshot(i))
    return window


@pytest.fixture
def full(model: Any, processor: PocketProcessor) -> torch.Tensor:
    images = [screenshot(i) for i in range(NUM_IMAGES)]
    return Conversation(model, processor).say("user", *images, "what?").logits()


def recalled_logits(make: MakeKamera, model: Any, **options: Any) -> torch.Tensor:
    """1. One Kamera sees the images and remembers them. 2. Another over the same store recalls every one."""
    options["base"] = "canonical"
    first = make(model, **options)
    see_all(first).logits("what?")
    first.flush()
    second = make(model, store=first.store, **options)
    window = see_all(second)
    logits = window.logits("what?")
    assert {span.origin for span in window.spans if span.kind == "image"} == {"recalled"}
    assert second.stats().encoder_calls == 0
    return logits


def blind_logits(make: MakeKamera, model: Any) -> torch.Tensor:
    first = make(model, base="canonical")
    see_all(first).logits("what?")
    first.flush()
    first.store.delete([header.key for header in first.store.headers() if header.kind == "patch"])
    window = see_all(make(model, fidelity="blind", base="canonical", store=first.store))
    logits = window.logits("what?")
    # The first has no chunk before it, only other texts.
    assert [span.origin for span in window.spans if span.kind == "image"] == ["recalled"] + 3 * ["blind"]
    return logits


def test_full_rank_recall_is_a_full_prefill(make: MakeKamera, model: Any, full: torch.Tensor) -> None:
    assert max_error(full, recalled_logits(make, model, rank=FULL_RANK)) <= 1e-3


def test_error_falls_with_rank_and_blind_is_worst(make: MakeKamera, model: Any, full: torch.Tensor) -> None:
    logits = {rank: recalled_logits(make, model, rank=rank) for rank in (1, 2, 4, 8, 16, FULL_RANK)}
    errors = [float((full - at_rank).norm()) for at_rank in logits.values()]
    assert all(later <= 1.02 * earlier for earlier, later in itertools.pairwise(errors)), errors
    assert kl(full, blind_logits(make, model)) > kl(full, logits[8])


def test_int8_factors_of_all_components_cost_what_rounding_costs(
    make: MakeKamera, model: Any, full: torch.Tensor
) -> None:
    """A quarter of the bytes of full rank, and less divergence than with a component in eight left out."""
    rounded = recalled_logits(make, model, rank="auto", error_budget=1e-6, byte_budget=1.0)
    assert max_error(full, rounded) > 1e-3
    assert kl(full, rounded) < kl(full, recalled_logits(make, model, rank=FULL_RANK - 3))


def test_blind_is_never_used_unasked(make: MakeKamera, model: Any) -> None:
    """Without a patch, chunks whose canonical KV is there are computed again."""
    first = make(model, base="canonical")
    see_all(first).logits("what?")
    first.flush()
    first.store.delete([header.key for header in first.store.headers() if header.kind == "patch"])
    window = see_all(make(model, base="canonical", stale="keep", store=first.store))
    window.logits("what?")
    # The first has no chunk before it, only other texts.
    assert [span.origin for span in window.spans if span.kind == "image"] == ["recalled"] + 3 * ["computed"]


@pytest.mark.parametrize(
    ("order", "grade"),
    [((0, 1, 2, 3), "chain"), ((1, 0, 2, 3), "orbit"), ((1, 3), "survivor"), ((3, 2), None)],
    ids=["same order", "another order", "some gone", "not seen so"],
)
def test_lookup_order(make: MakeKamera, order: tuple[int, ...], grade: str | None) -> None:
    """The last chunk of `order`, after the others, finds the KV that it had after 0, 1, 2 and 3."""
    first = make()
    see_all(first).logits("what?")
    first.flush()
    window = make(store=first.store, stale="keep").window()
    for i in order:
        window.add_image(screenshot(i))
    last = window.plan().rows[-1]
    assert (last.match, last.origin) == (grade, "recalled" if grade else "computed")


def test_a_base_over_approximate_antecedents_says_so(make: MakeKamera) -> None:
    kamera = make(stale="keep", heal="never")
    window = see_all(kamera)
    window.logits("what?")
    window.slide(2)
    window.add_image(screenshot(9))
    window.logits("what?")
    kamera.flush()
    flags = [header.attributes["exact"] for header in kamera.store.headers()]
    assert sorted(flags) == [False] + [True] * NUM_IMAGES


def test_a_thousand_moves_are_one_relocation_in_bf16(processor: PocketProcessor, seeded: torch.Generator) -> None:
    """1. Keys turned a thousand times, to a thousand positions. 2. The same keys turned once: the same bits, which
    are also those of the model's own rotary function."""
    model = build_model(TINY, dtype=torch.bfloat16)
    engine = Engine(family_for(model, processor), 0)
    pool = engine.new_pool()
    slots = pool.allocate(63)
    [bank] = pool.banks
    bank.masters[:, :, :63] = torch.randn(4, 2, 63, 16, generator=seeded).bfloat16()
    positions = torch.stack([torch.arange(63), torch.arange(63) // 9, torch.arange(63) % 9])
    for shift in [*torch.randint(0, 30000, (999,), generator=seeded).tolist(), 1234]:
        pool.relocate(slots, engine.family.decoder.rope_tables(positions + shift))
    expected = turn_keys(model, bank.masters[:, :, :63], positions + 1234)
    assert torch.equal(bank.keys[:, :, :63], expected)


@torch.no_grad()
def test_a_thousand_moves_are_the_models_own_keys_in_fp32(
    model: Any, processor: PocketProcessor, seeded: torch.Generator
) -> None:
    """1. A chunk after the anchor, computed once and turned a thousand times. 2. Anchor and chunk through plain
    Hugging Face, with all positions shifted to where the chunk lies last: its cache holds the same keys."""
    engine = Engine(family_for(model, processor), 10**9)
    family, pool = engine.family, engine.new_pool()
    runs = [TextRun(family.chat.anchor_ids), family.image_chunk(screenshot(0, 130, 250), "default")]
    anchor, chunk = (pool.allocate(len(run.token_ids)) for run in runs)
    start = runs[0].extent
    engine.prefill(pool, [Placed(runs[0], anchor, 0, 0), Placed(runs[1], chunk, start, start)])
    last = 1234
    for shift in [*torch.randint(0, 30000, (999,), generator=seeded).tolist(), last]:
        engine.relocate(pool, [Placed(runs[1], chunk, start + shift, start)])
    embeds = torch.cat([family.embed(runs[0], None), family.embed(runs[1], family.encode(runs[1]))])
    positions = torch.cat([family.positions(run, at + last) for run, at in zip(runs, (0, start), strict=True)], dim=1)
    cache = DynamicCache()
    model.model.language_model(inputs_embeds=embeds[None], position_ids=positions[:, None], **{CACHE_ARGUMENT: cache})
    expected = torch.cat([layer.keys for layer in cache.layers])[:, :, start:]
    [bank] = pool.banks
    assert max_error(expected, bank.keys[:, :, chunk.index(pool.device)]) <= 1e-4


def test_moved_keys_are_the_models_own(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    """fp32: a chunk whose antecedent is dropped lies where the model's own keys lie, within 1e-4."""
    window = make(model, stale="keep").window()
    first = window.add_image(screenshot(0, 196, 84))
    kept = window.add_image(screenshot(1))
    window.logits()
    before = {span.id: span for span in window.spans}[kept]
    masters = torch.stack([layer.keys for layer in window._assembly.residence.pool.read(Slots(before.slots))])
    window.drop(first)
    window.logits()
    after = {span.id: span for span in window.spans}[kept]
    assert after.origin == "moved"
    assert after.position < before.position
    offsets = window._items.live[1].run.offsets
    expected = turn_keys(model, masters, offsets + after.position)
    part = after.slots[0]
    [bank] = window._assembly.residence.pool.banks
    assert max_error(expected, bank.keys[:, :, part.start : part.stop]) <= 1e-4
