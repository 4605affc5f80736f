"""A new image that is nearly one of the window, with near="tiles", against plain Hugging Face."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from huggingface import CACHE_ARGUMENT, Conversation, turn_keys
from models import MakeKamera, max_error, screenshot
from transformers import DynamicCache

from kamera_agent import Kamera, Window
from kamera_agent.window.plan import PlanRow

# A tile is 28 pixels wide and high; the default screenshot has 4 rows of 6 of them, between two marks.
TILE, COLUMNS = 28, 6
FIRST = screenshot(0)
QUESTION = "what is new?"


def with_tiles(image: np.ndarray, *tiles: tuple[int, int]) -> np.ndarray:
    """The image with one other pixel in each of these tiles (row, column)."""
    other = image.copy()
    for row, column in tiles:
        other[row * TILE + 9, column * TILE + 20] ^= 255
    return other


def tokens_of(*tiles: tuple[int, int]) -> list[int]:
    """Tokens of a screenshot that are computed where these tiles differ: they and the marks."""
    return [0, *(1 + row * COLUMNS + column for row, column in tiles), 25]


CHANGED = (0, 1), (0, 2), (3, 5)
SECOND = with_tiles(FIRST, *CHANGED)


def shown(kamera: Kamera, *images: np.ndarray) -> Window:
    """A window that has answered over these images, and not healed."""
    window = kamera.window()
    for image in images:
        window.add_image(image)
    window.logits()
    return window


def last_row(window: Window) -> PlanRow:
    return [row for row in window.plan().rows if row.kind == "image"][-1]


@pytest.fixture
def tiled(make: MakeKamera, model: Any) -> Window:
    """A window that has answered over an image, and now has one that is nearly the same as well."""
    window = shown(make(model, near="tiles"), FIRST)
    window.add_image(SECOND)
    return window


def test_the_tokens_of_other_tiles_take_the_kv_of_the_resembled_image(
    tiled: Window, model: Any, processor: Any
) -> None:
    conversation = Conversation(model, processor).say("user", FIRST, SECOND, QUESTION)
    expected = token_by_token(conversation, tokens_of(*CHANGED))
    assert max_error(expected, tiled.logits(QUESTION)) <= 1e-4


def test_the_resembled_image_may_leave_in_the_same_turn(make: MakeKamera, model: Any) -> None:
    """Its KV is that of the other window, in which it stays."""
    windows = [shown(make(model, near="tiles"), FIRST) for _ in range(2)]
    for window in windows:
        window.add_image(SECOND)
    windows[1].slide(keep_last=1)
    kv = []
    for window in windows:
        window.logits()
        [resident] = [one for one in window._assembly.residence.residents if one.origin == "tiled"]
        kv.append(window._assembly.residence.pool.read(resident.slots))
        window.check_integrity()
    unchanged = [token for token in range(26) if token not in tokens_of(*CHANGED)]
    for ours, theirs in zip(*kv, strict=True):
        assert torch.equal(ours.keys[:, unchanged], theirs.keys[:, unchanged])
        assert torch.equal(ours.values[:, unchanged], theirs.values[:, unchanged])


def test_a_healed_window_is_that_of_a_full_prefill(make: MakeKamera, model: Any, processor: Any) -> None:
    kamera = make(model, near="tiles")
    window = shown(kamera, FIRST)
    window.add_image(SECOND)
    window.logits()
    assert not window.spans[-1].exact
    assert len(kamera.store.headers()) <= 1
    kamera.settle()
    kamera.flush()
    assert all(span.exact for span in window.spans)
    expected = Conversation(model, processor).say("user", FIRST, SECOND, QUESTION).logits()
    assert max_error(expected, window.logits(QUESTION)) <= 1e-4
    assert len(kamera.store.headers()) == 2


def test_what_is_reported(tiled: Window) -> None:
    [first, second] = [span.id for span in tiled.spans if span.kind == "image"]
    row = last_row(tiled)
    assert (row.id, row.origin, row.exact, row.near) == (second, "tiled", False, first)
    assert row.refreshed == pytest.approx(5 / 26)
    assert f"like {first}, 19% computed" in str(tiled.plan())
    usage = tiled.generate(QUESTION, max_tokens=1).usage
    assert (usage.tokens_tiled, usage.tokens_refreshed, usage.encoder_calls) == (26, 5, 1)
    span = next(span for span in tiled.spans if span.id == second)
    assert (span.origin, span.exact, span.stale) == ("tiled", False, None)
    assert last_row(tiled).origin == "kept"


def test_the_image_that_differs_least_is_taken(make: MakeKamera) -> None:
    window = shown(make(near="tiles"), with_tiles(SECOND, (2, 2)), SECOND, with_tiles(SECOND, (1, 1), (1, 2)))
    window.add_image(with_tiles(SECOND, (0, 0)))
    images = [span.id for span in window.spans if span.kind == "image"]
    assert last_row(window).near == images[1]


HALF = [(row, column) for row in range(4) for column in range(3)]


@pytest.mark.parametrize(
    ("image", "options"),
    [
        pytest.param(SECOND, {}, id="by default"),
        pytest.param(SECOND, {"near": "tiles", "fidelity": "exact"}, id="exact"),
        pytest.param(with_tiles(FIRST, *HALF), {"near": "tiles"}, id="half of it"),
        pytest.param(screenshot(0, 112, 140), {"near": "tiles"}, id="another size"),
        pytest.param(screenshot(1), {"near": "tiles"}, id="another image"),
    ],
)
def test_what_is_computed(make: MakeKamera, image: np.ndarray, options: dict[str, Any]) -> None:
    window = shown(make(**options), FIRST)
    window.add_image(image)
    assert (last_row(window).origin, last_row(window).near) == ("computed", None)


def test_a_known_image_is_recalled(make: MakeKamera) -> None:
    kamera = make(near="tiles")
    shown(kamera, FIRST, SECOND)
    kamera.flush()
    window = shown(kamera, FIRST)
    window.add_image(SECOND)
    assert last_row(window).origin == "recalled"


@torch.no_grad()
def token_by_token(conversation: Conversation, changed: Sequence[int]) -> torch.Tensor:
    """Logits [vocab] after a conversation, of one token at a time through the plain text model.

    After each token of the second image that has not changed, the cache takes the KV of the same token of the first,
    turned to its position.
    """
    model, inputs = conversation.model, conversation.inputs()
    embeds, positions = decoder_inputs(model, inputs)
    [opens] = (inputs["input_ids"][0] == model.config.vision_start_token_id).nonzero().T
    taken = {int(opens[1]) + token: int(opens[0]) + token for token in range(26) if token not in changed}
    cache = DynamicCache()
    text = model.model.language_model
    for token in range(embeds.shape[1]):
        at = slice(token, token + 1)
        hidden = text(
            inputs_embeds=embeds[:, at], position_ids=positions[..., at], **{CACHE_ARGUMENT: cache}
        ).last_hidden_state
        if token in taken:
            source = taken[token]
            shift = positions[-3:, 0, at] - positions[-3:, 0, source : source + 1]
            for layer in cache.layers:
                layer.keys[:, :, at] = turn_keys(model, layer.keys[:, :, source : source + 1], shift)
                layer.values[:, :, at] = layer.values[:, :, source : source + 1]
    return model.lm_head(hidden[0, -1]).float()


def decoder_inputs(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [1, T, hidden] and positions [3 or 4, 1, T] that the model itself gives its text model."""
    found: dict[str, Any] = {}

    def keep(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        found.update(kwargs)

    handle = model.model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    model.model.rope_deltas = None
    model(**inputs, use_cache=False)
    handle.remove()
    return found["inputs_embeds"], found["position_ids"]
