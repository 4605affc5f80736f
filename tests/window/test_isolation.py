"""No public call crosses a namespace: what one of them has stored is neither served to another one nor changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MakeKamera, screenshot

from kamera_agent import FramesContent, ImageContent, InputError, Kamera, Window
from kamera_agent.chunk import Key
from kamera_agent.store.entry import Entry

FRAMES = np.stack([screenshot(seed) for seed in (5, 6)])


def fill(window: Window) -> list[str]:
    """What every window of these tests holds. Returns the ids of its chunks."""
    window.add_text("Look.")
    return [window.add_image(screenshot(0)), window.add_frames(FRAMES), window.add_document("A long text of its own.")]


def images(window: Window) -> list[str]:
    return [span.id for span in window.spans if span.kind == "image"]


def drop_and_recall(window: Window) -> None:
    [span_id] = images(window)
    window.drop(span_id)
    window.recall(span_id)


def set_demand(window: Window) -> None:
    window.demand = None


def set_exact_only(window: Window) -> None:
    window.exact_only = True


# Every public name of a Window, used in one namespace beside another one that has the same content.
CALLS: dict[str, Callable[[Window], Any]] = {
    "add_document": lambda window: window.add_document("Another text."),
    "add_frames": lambda window: window.add_frames(FRAMES[:1]),
    "add_image": lambda window: window.add_image(screenshot(1)),
    "add_text": lambda window: window.add_text("More."),
    "adopt": lambda window: None,  # of another namespace it is refused: see below
    "check_integrity": lambda window: window.check_integrity(),
    "demand": set_demand,
    "drop": lambda window: window.drop(images(window)[0]),
    "dropped_bytes": lambda window: window.dropped_bytes,
    "exact_only": set_exact_only,
    "expect": lambda window: window.expect([ImageContent(screenshot(1))]),
    "full_prefill": lambda window: window.full_prefill()(lambda: None),
    "generate": lambda window: window.generate("what?", max_tokens=2),
    "logits": lambda window: window.logits("what?"),
    "pixels": lambda window: window.pixels(images(window)[0]),
    "plan": lambda window: window.plan([ImageContent(screenshot(1)), FramesContent(FRAMES)]),
    "pool_bytes": lambda window: window.pool_bytes,
    "recall": drop_and_recall,
    "reference_logits": lambda window: window.reference_logits("what?"),
    "reorder": lambda window: window.reorder(
        [span.id for span in window.spans if span.kind in ("image", "frames", "document")][::-1]
    ),
    "show": lambda window: window.show(),
    "slide": lambda window: window.slide(1),
    "spans": lambda window: window.spans,
    "stream": lambda window: window.stream("what?", max_tokens=2).finish(),
    "sync": lambda window: window.sync([ImageContent(screenshot(1)), FramesContent(FRAMES)]),
}


def test_every_public_name_is_there() -> None:
    assert set(CALLS) == {name for name in dir(Window) if not name.startswith("_")}


def held(kamera: Kamera) -> dict[str, dict[bytes, Entry]]:
    """The records by namespace, with their last uses and their numbers of uses."""
    kamera.flush()
    store = kamera.store.lower  # type: ignore[attr-defined]
    # Uses are written with the next change.
    store.delete([Key.of(nothing="of this key")])
    spaces = {h.chunk: json.loads(h.key.material)["namespace"] for h in store.headers() if h.kind == "base"}
    by_space: dict[str, dict[bytes, Entry]] = {}
    for digest, entry in store.entries().items():
        by_space.setdefault(spaces[entry.chunk], {})[digest] = entry
    return by_space


@pytest.mark.parametrize("name", CALLS)
def test_a_call_neither_uses_nor_changes_what_another_namespace_has(
    make: MakeKamera, tmp_path: Path, name: str
) -> None:
    """1. Ada's window answers and is stored. 2. Bob's has the same content, and makes the call. 3. Bob's answers."""
    kamera = make(store=tmp_path)
    ada, bob = kamera.window(namespace="ada"), kamera.window(namespace="bob")
    fill(ada)
    ada.generate("what?", max_tokens=2)
    kamera.settle()
    before = held(kamera)
    fill(bob)
    CALLS[name](bob)
    kamera.settle()
    bob.generate("so?", max_tokens=2)
    after = held(kamera)
    assert set(before) == {"ada"}
    assert after.pop("ada") == before["ada"]
    # Whatever the call left of them, Bob's chunks were computed for Bob.
    assert set(after) <= {"bob"}
    assert kamera.stats().store.bytes_read == 0


def test_a_second_conversation_of_the_same_namespace_does_use_them(make: MakeKamera, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    kamera = make(store=tmp_path)
    ada, again = kamera.window(namespace="ada"), kamera.window(namespace="ada")
    fill(ada)
    ada.generate("what?", max_tokens=2)
    before = held(kamera)
    fill(again)
    usage = again.generate("what?", max_tokens=2).usage
    assert usage.tokens_recalled > 0
    assert held(kamera)["ada"] != before["ada"]


def test_kv_of_another_namespace_is_not_adopted(make: MakeKamera) -> None:
    kamera = make()
    ada, bob = kamera.window(namespace="ada"), kamera.window(namespace="bob")
    ada.generate("what?", max_tokens=2)
    with pytest.raises(InputError, match="'bob' cannot adopt KV of namespace 'ada'"):
        bob.adopt(ada)
