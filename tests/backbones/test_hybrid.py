"""Models with recurrent layers: what a span keeps in them, against plain Hugging Face and a fold token by token."""

from typing import Any

import pytest
import torch
from hybrid import Recorded, record, replay
from models import MakeKamera, max_error, screenshot
from prompts import Talk
from rows import Row, named

from kamera_agent import Window
from kamera_agent.window.span import Span

SIZES = [(70, 98), (126, 84), (84, 154)]
A, B, C = (screenshot(seed, *size) for seed, size in enumerate(SIZES))
QUESTION = "what is it?"

hybrids = pytest.mark.parametrize("row", named("qwen3_5", "qwen3_5_moe"), indirect=True)


def recorded(row: Row, *parts: Any) -> Recorded:
    return record(row.model, Talk(row.model, row.processor).say("user", *parts, QUESTION).inputs())


def name(span: Span) -> str:
    """The id of a span. The mark of the only turn is named after the span that it is before."""
    return "turn" if span.kind == "turn" else span.id


def tokens(window: Window) -> dict[str, list[int]]:
    """The places of every span's tokens in the window, by name."""
    places, start = {}, 0
    for span in window.spans:
        places[name(span)] = list(range(start, start + span.num_tokens))
        start += span.num_tokens
    return places


def source_of(window: Window, before: dict[str, list[int]], num_tokens: int) -> list[int | None]:
    """Per token of the window and the question, its place in the window before; None for those computed."""
    source: list[int | None] = []
    for span in window.spans:
        source += [None] * span.num_tokens if span.origin == "computed" else before[name(span)]
    return source + [None] * (num_tokens - len(source))


@pytest.fixture
def filled(make: MakeKamera) -> tuple[Window, list[str], dict[str, list[int]]]:
    window = make(stale="keep", heal="never").window()
    ids = [window.add_image(A), window.add_text("then"), window.add_image(B), window.add_image(C)]
    window.logits(QUESTION)
    return window, ids, tokens(window)


@hybrids
@pytest.mark.parametrize("edit", ["drop", "reorder", "slide"])
def test_moved_is_a_fold_token_by_token(row: Row, filled: Any, edit: str) -> None:
    window, (a, _, b, c), before = filled
    old = recorded(row, A, "then", B, C)
    match edit:
        case "drop":
            window.drop(b)
            parts = [A, "then", C]
        case "reorder":
            window.reorder([c, a, b])
            parts = [C, "then", A, B]
        case _:
            window.slide(keep_last=1)
            parts = ["then", C]
    new = recorded(row, *parts)
    logits = window.logits(QUESTION)
    assert "moved" in {span.origin for span in window.spans}
    expected = replay(row.model, old, new, source_of(window, before, len(new.embeds)))
    assert max_error(expected, logits) <= 1e-4


@hybrids
def test_a_reply_goes_on_from_the_fold(row: Row, filled: Any) -> None:
    window, (a, *_), before = filled
    old, new = recorded(row, A, "then", B, C), recorded(row, "then", B, C)
    window.drop(a)
    reply = window.generate(QUESTION, max_tokens=8)
    token_ids = next(item.run.token_ids for item in window._items.live if item.id == reply.span_id)
    source = source_of(window, before, len(new.embeds))[: len(new.embeds)]
    table = row.model.model.language_model.embed_tokens
    for token in token_ids:
        assert token == int(replay(row.model, old, new, source).argmax())
        position = new.positions[:, -1:] + 1
        new = Recorded(
            torch.cat([new.embeds, table(torch.tensor([token]))]), torch.cat([new.positions, position], dim=1)
        )
        source.append(None)


@hybrids
def test_an_interrupted_reply_is_not_in_the_next_fold(row: Row, make: MakeKamera) -> None:
    window = make(heal="never").window()
    window.add_image(A)
    window.logits(QUESTION)
    expected = window.logits(QUESTION)
    extend = window._engine.extend

    def interrupted(*args: Any) -> torch.Tensor:
        logits = extend(*args)
        if len(window._assembly.residence.reply) == 3:
            raise KeyboardInterrupt
        return logits

    window._engine.extend = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        window.generate(QUESTION, max_tokens=8)
    window._engine.extend = extend  # type: ignore[method-assign]
    assert max_error(expected, window.logits(QUESTION)) <= 1e-5
    window.check_integrity()


@hybrids
def test_a_stale_chunk_is_computed_whole(row: Row, make: MakeKamera) -> None:
    """A state passes through all of its tokens, so some of them alone cannot be computed again."""
    window = make(heal="never").window()
    a, _ = window.add_image(A), window.add_image(B)
    window.logits(QUESTION)
    window.drop(a)
    assert [(row.origin, row.refresh) for row in window.plan().rows if row.kind == "image"] == [("computed", False)]
