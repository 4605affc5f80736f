"""Places of a changing window against those that are laid out from nothing, and by hand."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from models import TINY, screenshot

from kamera_agent import Kamera, TextContent
from kamera_agent.antecedents import link
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.window.content import Content, ImageContent
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, Layout, Place

# Markup that ends with a space, which belongs to the first word after it.
SPACED = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CONTENTS: list[Content] = [
    *(TextContent(text, role, begins) for text in "ab" for role in ("user", "assistant") for begins in (True, False)),
    TextContent("", "user", new_turn=True),
    ImageContent(screenshot(0, 28, 28)),
    ImageContent(screenshot(1, 56, 28), new_turn=True),
]


@pytest.fixture(scope="module", params=[None, SPACED], ids=["pocket", "spaced"])
def kamera(request: pytest.FixtureRequest) -> Any:
    processor = build_processor()
    if request.param:
        processor.tokenizer.chat_template = request.param
    with Kamera(build_model(TINY), processor) as kamera:
        yield kamera


def facts(places: Sequence[Place]) -> list[tuple[Any, ...]]:
    return [
        (place.item.id, place.item.run.token_ids, place.position, place.order, place.before.chain) for place in places
    ]


def test_a_layout_that_remembers_is_that_of_a_new_one(kamera: Kamera) -> None:
    """Random edits, each with and without the turn of a reply, over windows that begin alike."""
    random = Random(0)
    family, settings = kamera.family, kamera.settings
    layout, items = Layout(family), Items(family, settings, "")
    for content in CONTENTS:
        items.enter(items.make(content))
    window = [*items.live[:4]]
    for number in range(200):
        match random.randrange(4):
            case 0 if len(window) > 1:
                del window[random.randrange(1, len(window))]
            case 1:
                window[1:] = random.sample(window[1:], len(window) - 1)
            case _:
                others = [item for item in items.live if item not in window]
                window[random.randrange(1, len(window) + 1) : 0] = random.sample(others, min(1, len(others)))
        for reply_id in (None, f"reply{number}"):
            assert facts([*layout.places(window, reply_id)]) == facts([*Layout(family).places(window, reply_id)])


def test_places_follow_each_other(kamera: Kamera) -> None:
    """Positions, orders and chains, added up run by run."""
    items = Items(kamera.family, kamera.settings, "You look.")
    for content in CONTENTS:
        items.enter(items.make(content))
    position = order = 0
    chain = b""
    for place in Layout(kamera.family).places(items.live, "reply"):
        run = place.item.run
        assert (place.position, place.order, place.before.chain) == (position, order, chain)
        position, order, chain = position + run.extent, order + len(run.token_ids), link(chain, run)


def test_what_begins_alike_has_the_same_places(kamera: Kamera) -> None:
    """The window before an answer, the window with its question, and the one after the answer."""
    items, layout = Items(kamera.family, kamera.settings, ""), Layout(kamera.family)
    for content in CONTENTS:
        items.enter(items.make(content))
    before = layout.places(items.live)
    question = Item("question", "text", "user", items.make(TextContent("c")).run, "c", new_turn=True)
    after = layout.places([*items.live, question], "reply")
    assert all(one is other for one, other in zip(before, after[: len(before)], strict=True))
    assert after[-1].item.id == "reply:turn"
