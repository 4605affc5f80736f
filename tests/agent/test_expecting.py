"""ScreenWindow says what goes next, so that it is computed before the next call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AnyMessage, HumanMessage

from kamera_agent import Kamera
from kamera_agent.agent import Budget, ChatKamera, Interval, KeepLast, ScreenWindow
from kamera_agent.turns.policy import Policy

Block = Callable[[int], dict[str, str]]
PAGES = [0, 1, 2, 2, 3, 4, 5]


def computed(pocket: Kamera, image_block: Block, window: ScreenWindow) -> list[int]:
    """Tokens that each call of a conversation computes where only exact KV is taken over."""
    counts, messages = [], list[AnyMessage]()
    family = pocket.family
    with Kamera(family.model, family.processors.whole, fidelity="exact", heal="ahead") as kamera:
        chat = ChatKamera(kamera=kamera, max_tokens=4)
        for page in PAGES:
            messages.append(HumanMessage(["Here:", image_block(page), "Where is anna?"]))
            reply = chat.invoke(window.edit(messages, chat, thread="one"), conversation="one")
            counts.append(reply.response_metadata["kamera"]["origins"]["computed"])
            messages.append(reply)
            assert kamera.settle()
    return counts


@pytest.mark.parametrize(
    ("policy", "pinned"),
    [(KeepLast(2), ()), (KeepLast(2), (1,)), (Interval(2, 2), ()), (Budget(120), ())],
    ids=["last", "pinned", "interval", "budget"],
)
def test_a_slide_costs_no_more_than_none(
    kamera: Kamera, image_block: Block, tmp_path: Path, policy: Policy, pinned: Any
) -> None:
    """Every call computes what is new in it, as if no screenshot had gone. A screen that repeats is a text."""
    slides = computed(kamera, image_block, ScreenWindow(policy=policy, pinned=pinned, folder=tmp_path))
    stays = computed(kamera, image_block, ScreenWindow(policy=KeepLast(99), folder=tmp_path))
    assert slides == stays


def test_other_models_see_no_marks(image_block: Block, tmp_path: Path) -> None:
    messages = [HumanMessage([image_block(page)]) for page in range(3)]
    shown = ScreenWindow(keep_last=2, folder=tmp_path).edit(messages)
    assert "extras" not in str(shown)
    assert [block["type"] for message in shown for block in message.content] == ["text", "image", "image"]
