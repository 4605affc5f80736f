"""What a turn looks at again, by counting: as much at a thousand messages as at ten."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import TINY, max_error, screenshot

from kamera_agent import Kamera, Window, antecedents, chunk
from kamera_agent.pocket.model import PocketProcessor, build_model
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families.tokens import Tokens
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.refresh import Refresh
from kamera_agent.window.content import Content, ImageContent, TextContent
from kamera_agent.window.library import Library
from kamera_agent.window.planner import Planner

NUM_SHOWN = 3


@pytest.fixture(scope="module")
def long_model() -> Any:
    return build_model(replace(TINY, max_positions=32768))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts tokenisations, digests and plans of texts, links of chains, rotations, placings, look-ups in the store."""
    counter: Counter[str] = Counter()

    def count(owner: Any, name: str, label: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counter[label] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(Tokens, "encode", "encode")
    count(Tokens, "markup", "encode")
    count(chunk, "blake3", "digest")
    count(antecedents, "blake3", "link")
    count(KVPool, "relocate", "rotate")
    count(Engine, "place", "place")
    count(Library, "evidence", "look up")
    count(Planner, "_text", "text")
    return counter


def talk(num_messages: int) -> list[Content]:
    roles = ("user", "assistant")
    return [TextContent(f"{number}", roles[number % 2], new_turn=True) for number in range(num_messages)]


def step(number: int) -> list[Content]:
    """What an agent shows after the talk: the last screenshots, and a text for each older one."""
    contents: list[Content] = []
    for seen in range(number + 1):
        is_shown = seen > number - NUM_SHOWN
        contents.append(ImageContent(screenshot(seen), new_turn=True) if is_shown else TextContent("b", new_turn=True))
        contents.append(TextContent("c", "assistant", new_turn=True))
    return contents[:-1]


def turn(window: Window, contents: Sequence[Content | str], calls: Counter[str]) -> dict[str, int]:
    """What a turn counts, from sync() to the first token."""
    calls.clear()
    window.sync(contents)
    window.logits()
    return dict(calls)


def steady(kamera: Kamera, num_messages: int, calls: Counter[str]) -> dict[str, int]:
    window, history = kamera.window(), talk(num_messages)
    for number in range(NUM_SHOWN + 2):
        turn(window, [*history, *step(number)], calls)
    kamera.flush()
    return turn(window, [*history, *step(NUM_SHOWN + 2)], calls)


def test_a_step_of_an_agent_looks_at_what_has_changed(
    long_model: Any, processor: PocketProcessor, calls: Counter[str]
) -> None:
    """The oldest screenshot becomes a text, two move, and a new one comes with the text before it.

    Two texts are tokenised, and so is no markup. Every run from the changed screenshot on gets another chain: seven
    texts and screenshots and as many marks of turns, and the mark of the reply in each of two layouts.
    """
    with Kamera(long_model, processor, stale="keep", heal="never") as kamera:
        counts = steady(kamera, 1000, calls)
        assert counts == steady(kamera, 10, calls)
    assert counts["encode"] == 2
    # Those of the two texts and of the keys of the pictures, whose pixels are read again.
    assert counts["digest"] == 2 + NUM_SHOWN
    assert counts["rotate"] == 1
    assert counts["look up"] == NUM_SHOWN
    assert counts["link"] <= 20
    # Those from the screenshot on that changed in the turn before.
    assert counts["text"] <= 20
    assert counts["place"] <= 10


def test_what_moves_is_rotated_in_one_call(long_model: Any, processor: PocketProcessor, calls: Counter[str]) -> None:
    """A text in front of two thousand runs goes. Their tokens and digests are known, and they are one row."""
    with Kamera(long_model, processor, stale="keep", heal="never") as kamera:
        window = kamera.window()
        _, _, *others = window.sync(talk(1000))
        window.logits()
        counts = turn(window, others, calls)
        spans = window.spans
    assert {span.origin for span in spans[3:-1]} == {"moved"}
    assert (counts["rotate"], counts["place"]) == (1, 2)
    assert (counts.get("encode", 0), counts.get("digest", 0)) == (0, 0)


def test_what_all_layers_get_is_narrowed_once_per_choice(
    processor: PocketProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh computes fewer rows after each of two choices. The layers after them share tables and positions."""
    narrowed: list[torch.Tensor] = []
    original = torch.Tensor.index_select

    def counted(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        narrowed.append(tensor)
        return original(tensor, *args)

    monkeypatch.setattr(Refresh, "_find_whole", lambda *args: None)
    model = build_model(replace(TINY, num_layers=8))
    with Kamera(model, processor, heal="never") as kamera:
        window = kamera.window()
        ids = [window.add_image(screenshot(number)) for number in range(3)]
        window.logits()
        window.reorder(ids[::-1])
        monkeypatch.setattr(torch.Tensor, "index_select", counted)
        window.logits()
    shared = [tensor for tensor in narrowed if tensor.shape[-1] != TINY.hidden]
    # The hidden states of layers 2 to 7, and once more where the second choice needs K and V first.
    assert len(narrowed) - len(shared) == 7
    assert 0 < len(shared) <= 2 * len({id(tensor) for tensor in shared})


def test_a_row_of_moved_texts_and_pictures_has_the_keys_of_a_full_prefill(
    long_model: Any, processor: PocketProcessor
) -> None:
    """In the first layer, keys depend on token and position alone. They are those that a new window computes."""
    first, *shown = [
        ImageContent(screenshot(0)),
        TextContent("a"),
        ImageContent(screenshot(1)),
        TextContent("b"),
        TextContent("c"),
        ImageContent(screenshot(2)),
    ]
    with Kamera(long_model, processor, stale="keep", heal="never") as kamera:
        moved, fresh = kamera.window(), kamera.window()
        moved.sync([first, *shown])
        moved.logits()
        moved.sync(shown)
        fresh.sync(shown)
        for window in (moved, fresh):
            window.logits()
        assert {span.origin for span in moved.spans[-len(shown) :]} == {"moved"}
        assert max_error(keys_of(fresh), keys_of(moved)) <= 1e-5


def keys_of(window: Window) -> torch.Tensor:
    """The turned keys [H, T, D] of the first layer, in the order of the window."""
    keys = window._assembly.residence.pool.rows[0].keys
    return torch.cat([keys[:, part.start : part.stop] for span in window.spans for part in span.slots], dim=1)
