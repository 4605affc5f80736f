"""Windows for an engine: what is planned, cut into requests, and kept apart in the engine's own cache."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import screenshot

from kamera_agent import ImageContent, Kamera, TextContent
from kamera_agent.errors import InputError, SettingError, WindowTooLongError
from kamera_agent.pages.blueprint import SAMPLE_TOKENS, Blueprint
from kamera_agent.pages.span import Load, Save
from kamera_agent.pages.window import PagedWindow, Request, engine_settings
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.store.memory import MemoryStore

A, B, C = (ImageContent(screenshot(seed)) for seed in range(3))
THEN = TextContent("and then")
QUESTION = "what is it?"
SETTINGS = engine_settings({}, "A test")


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return Blueprint.of(str(WEIGHTS), SETTINGS)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(1 << 30)


@pytest.fixture
def kamera(store: MemoryStore) -> Iterator[Kamera]:
    """What computes; its store is that of the windows."""
    with Kamera.pocket(store, stale="compute") as kamera:
        yield kamera


@pytest.fixture
def window(blueprint: Blueprint, store: MemoryStore) -> PagedWindow:
    return PagedWindow(blueprint, store, SETTINGS)


def compute(kamera: Kamera, *contents: Any) -> None:
    window = kamera.window()
    window.sync(contents)
    window.logits(QUESTION)
    kamera.flush()


def plan(window: PagedWindow, *contents: Any) -> Request:
    window.sync(contents)
    return window.request(QUESTION)


def origins(request: Request) -> list[str]:
    return [row.origin for row in request.plan.rows if row.kind == "image"]


def test_a_model_without_weights_makes_the_keys_and_tokens_of_one_with_them(
    blueprint: Blueprint, kamera: Kamera
) -> None:
    assert {parameter.device.type for parameter in blueprint.family.model.parameters()} == {"meta"}
    pixels = screenshot(7)
    ours, theirs = (family.image_chunk(pixels, "default") for family in (blueprint.family, kamera.family))
    assert (ours.key, ours.token_ids) == (theirs.key, theirs.token_ids)
    assert torch.equal(ours.offsets, theirs.offsets)
    window = kamera.window()
    window.sync([A, THEN, B])
    spans = [token for place in window._layout.places(window._items.live, "r") for token in place.item.run.token_ids]
    paged = PagedWindow(blueprint, kamera.store, SETTINGS)
    paged.sync([A, THEN, B])
    assert paged.request().token_ids == tuple(spans)


def test_what_is_new_is_computed_in_one_request_and_saved(window: PagedWindow) -> None:
    request = plan(window, A, THEN, B)
    [part] = request.parts
    assert origins(request) == ["computed", "computed"]
    assert not part.loads
    assert len(part.claim) == 0
    assert [save.key for save in part.saves] == [image.key for image in part.images]
    assert window.num_unsaved(request) == 2
    assert request.salt is None


def test_a_window_is_cut_before_each_row_of_recalled_spans(kamera: Kamera, window: PagedWindow) -> None:
    compute(kamera, A, B, THEN, C)
    request = plan(window, A, B, THEN, C)
    head, first, last = request.parts
    assert origins(request) == ["recalled"] * 3
    assert [len(part.images) for part in request.parts] == [0, 2, 3]
    assert head.claim == range(0)
    assert first.claim == range(len(head.token_ids), first.loads[1].end)
    assert last.claim == range(len(first.token_ids), last.loads[0].end)
    assert request.token_ids[: len(first.token_ids)] == first.token_ids
    assert request.token_ids[first.claim.start] == first.images[0].token_ids[0]
    assert request.plan.rows[-1].exact
    assert request.salt is None


def test_inexact_kv_gets_pages_of_its_own(kamera: Kamera, window: PagedWindow) -> None:
    compute(kamera, A, B)
    slid = plan(window, B, THEN)
    assert origins(slid) == ["recalled"]
    assert slid.salt
    assert plan(window, B, THEN).salt == slid.salt, "the pages are those of the same KV"
    # The same tokens, for which the store has better KV by now: pages of the former must not be taken for it.
    compute(kamera, B, THEN)
    better = plan(window, B, THEN)
    assert [step.evidence.patch is None for step in (*slid.steps, *better.steps) if step.evidence] == [True, False]
    assert better.salt not in (None, slid.salt)


def test_conversations_do_not_share_inexact_pages(
    kamera: Kamera, window: PagedWindow, blueprint: Blueprint, store: MemoryStore
) -> None:
    compute(kamera, A, B)
    other = PagedWindow(blueprint, store, SETTINGS)
    assert plan(window, B).salt != plan(other, B).salt


def test_what_goes_to_the_engine_survives_json(kamera: Kamera, window: PagedWindow) -> None:
    compute(kamera, A)
    load = plan(window, A, B).parts[1].loads[0]
    again = Load.from_json(json.loads(json.dumps(load.to_json())))
    assert (again.first, again.end, again.evidence.base) == (load.first, load.end, load.evidence.base)
    assert torch.equal(again.positions, load.positions)
    save = plan(window, A, B).parts[1].saves[0]
    other = Save.from_json(json.loads(json.dumps(save.to_json())))
    assert (other.first, other.key, other.seen) == (save.first, save.key, save.seen)


def test_a_reply_becomes_a_span(window: PagedWindow) -> None:
    window.sync([A])
    before = window.request(QUESTION).token_ids
    window.enter(QUESTION, (5, 6, 7), "five")
    after = window.request("why?").token_ids
    assert after[: len(before) + 3] == (*before, 5, 6, 7)


@pytest.mark.parametrize(
    "options", [{"stale": "refresh"}, {"near": "tiles"}, {"base": "canonical"}], ids=["stale", "near", "base"]
)
def test_what_an_engine_cannot_do_is_refused(options: Any) -> None:
    with pytest.raises(SettingError, match=next(iter(options.values()))):
        engine_settings(options, "A test")


def test_a_window_that_is_refused_stays_as_it_was(window: PagedWindow) -> None:
    window.sync([A])
    before = window.request().token_ids
    with pytest.raises(WindowTooLongError):
        window.request("far too long " * 10_000)
    with pytest.raises(InputError, match="Ima"):
        window.sync([A, 5])
    assert window.request().token_ids == before


def test_the_picture_has_the_kv_of_one_that_is_computed_after_the_anchor(blueprint: Blueprint, kamera: Kamera) -> None:
    picture = blueprint.picture
    assert picture
    expected = kamera._engine.canonical(picture.chunk).kv
    assert all(torch.equal(one.keys, other.keys) for one, other in zip(picture.kv, expected, strict=True))
    assert picture.start == len(kamera.family.chat.anchor_ids)


def test_the_sample_is_of_more_than_two_pages(blueprint: Blueprint) -> None:
    assert len(blueprint.sample.token_ids) == SAMPLE_TOKENS
    assert len(blueprint.sample.kv) == blueprint.rotation.num_layers
    assert blueprint.sample.kv[0].keys.shape[1] == SAMPLE_TOKENS
