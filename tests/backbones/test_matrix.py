"""Every backbone against plain Hugging Face: nothing dropped, moved, recalled, edited, generated."""

from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot
from prompts import Talk
from rows import Row, rows

from benchmarks.backbones.keys import keys_of_model
from kamera_agent import Window
from kamera_agent.runtime import interface
from kamera_agent.runtime.attention import attend

# Odd sizes, so that token counts are odd where the processor admits it.
SIZES = [(70, 98), (126, 84), (84, 154)]
A, B, C = (screenshot(seed, *size) for seed, size in enumerate(SIZES))
# Of one size, so that one rank is full for both.
TWINS = [A, screenshot(9, *SIZES[0])]
QUESTION = "what is it?"
LAYOUTS = {
    "text around": ["first", A, "then", B],
    "adjacent": [A, B],
    "alone": [C],
    "text only": [],
}
EDITS = ["drop first", "drop last", "reorder", "slide", "recall"]
SHIFTS = [1, -17, 1234]
START = 20


def fill(window: Window, parts: list[Any]) -> list[str]:
    """Add texts and images; returns the ids of the images."""
    ids = [window.add_text(part) if isinstance(part, str) else window.add_image(part) for part in parts]
    return [span_id for span_id, part in zip(ids, parts, strict=True) if not isinstance(part, str)]


def talk(row: Row, parts: list[Any]) -> Talk:
    return Talk(row.model, row.processor).say("user", *parts)


def bound(row: Row, reference: Talk) -> float:
    """fp32: 1e-4. bf16: twice what two kinds of attention differ by in full prefills of the same prompt."""
    if row.dtype is torch.float32:
        return 1e-4
    logits = reference.logits()
    row.model.set_attn_implementation("eager")
    try:
        return 2 * max_error(logits, reference.logits())
    finally:
        row.model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_dropped(row: Row, make: MakeKamera, layout: str) -> None:
    """In one go, and in three turns of which each computes what is new."""
    parts = LAYOUTS[layout]
    reference = talk(row, [*parts, QUESTION])
    window = make().window()
    fill(window, parts)
    assert max_error(reference.logits(), window.logits(QUESTION)) <= bound(row, reference)
    step_by_step = make().window()
    for part in parts:
        fill(step_by_step, [part])
        step_by_step.logits()
    assert max_error(reference.logits(), step_by_step.logits(QUESTION)) <= bound(row, reference)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_every_layer_attends_in_parts(row: Row, make: MakeKamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the other tests here compare attention in parts with the model's own."""
    kamera = make()
    num_calls = 0

    def counting(*args: Any) -> torch.Tensor:
        nonlocal num_calls
        num_calls += 1
        return attend(*args)

    monkeypatch.setattr(interface, "attend", counting)
    kamera.window().logits(QUESTION)
    assert num_calls == len(kamera.family.decoder.attentions)


@pytest.mark.parametrize("shift", SHIFTS)
@torch.no_grad()
def test_relocated_keys_are_the_models_own(row: Row, make: MakeKamera, shift: int) -> None:
    kamera = make()
    engine, family = kamera._engine, kamera.family
    chunk = family.image_chunk(A, "default")
    embeds, num_tokens = engine.embed(chunk), len(chunk.token_ids)
    positions = chunk.offsets + START
    pool = engine.new_pool()
    slots = pool.allocate(num_tokens)
    pool.place(slots, 0, family.both_ways(chunk))
    engine.forward_at(pool, slots, embeds, positions)
    masters = {layer: row.masters.clone() for layer, row in pool.rows.items()}
    for hop in (shift + 300, shift):
        pool.relocate(slots, family.decoder.rope_tables(positions + hop))
    pool.settle(slots)
    assert all(torch.equal(row.masters, masters[layer]) for layer, row in pool.rows.items())
    if row.dtype is torch.bfloat16:
        once = engine.new_pool()
        once.place(once.allocate(num_tokens), 0)
        for layer, row in once.rows.items():
            row.masters[:, :num_tokens] = masters[layer][:, :num_tokens]
        once.relocate(slots, family.decoder.rope_tables(positions + shift))
        once.settle(slots)
        for layer, row in once.rows.items():
            assert torch.equal(pool.rows[layer].keys[:, :num_tokens], row.keys[:, :num_tokens]), f"layer {layer}"
        return
    for layer, expected in keys_of_model(kamera, chunk, embeds, positions + shift).items():
        ours = pool.rows[layer].keys[:, :num_tokens]
        assert float((ours - expected).norm() / expected.norm()) <= 1e-4, f"layer {layer}"


def test_recall_by_rank(row: Row, make: MakeKamera) -> None:
    """Full rank equals full prefill, the error falls with the rank, and blind is worse than rank 8."""
    reference = talk(row, [*TWINS, QUESTION]).logits()
    largest = len(make().family.image_chunk(A, "default").token_ids)
    errors = {rank: recalled(make, reference, rank) for rank in (2, 8, largest)}
    # In bf16 the patch is fitted between rounded sums, and full rank is as good as rounding.
    assert errors[largest] <= (1e-3 if row.dtype is torch.float32 else errors[2])
    assert errors[8] <= 1.02 * errors[2]
    assert recalled(make, reference, None) > errors[8]


def recalled(make: MakeKamera, reference: torch.Tensor, rank: int | None) -> float:
    """Largest error of logits over two recalled images, which another Kamera saw before; blind without a rank."""
    options: dict[str, Any] = {"base": "canonical"} | ({"rank": rank} if rank else {"fidelity": "blind"})
    first = make(**options)
    window = first.window()
    fill(window, TWINS)
    window.logits(QUESTION)
    first.flush()
    if rank is None:
        first.store.delete([header.key for header in first.store.headers() if header.kind == "patch"])
    window = make(store=first.store, **options).window()
    fill(window, TWINS)
    logits = window.logits(QUESTION)
    origins = [span.origin for span in window.spans if span.kind == "image"]
    # The first has no chunk before it, only other texts.
    assert origins == ["recalled", "recalled" if rank else "blind"]
    return max_error(reference, logits)


@pytest.mark.parametrize("edit", EDITS)
def test_edits_in_exact(row: Row, make: MakeKamera, edit: str) -> None:
    window = make(fidelity="exact").window()
    a, b, c = fill(window, [A, B, C])
    window.logits(QUESTION)
    match edit:
        case "drop first":
            window.drop(a)
            left = [B, C]
        case "drop last":
            window.drop(c)
            left = [A, B]
        case "reorder":
            window.reorder([c, a, b])
            left = [C, A, B]
        case "slide":
            window.slide(keep_last=1)
            left = [C]
        case _:
            window.drop(a)
            window.logits(QUESTION)
            window.recall(a)
            left = [B, C, A]
    reference = talk(row, [*left, QUESTION])
    assert max_error(reference.logits(), window.logits(QUESTION)) <= bound(row, reference)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_greedy_reply_is_hugging_faces(row: Row, make: MakeKamera) -> None:
    """Not in bf16: two right ways may draw different tokens where two are nearly equal."""
    kamera = make(fidelity="exact")
    window = kamera.window()
    fill(window, [A, "then", B])
    reply = window.generate(QUESTION, max_new_tokens=16)
    expected = talk(row, [A, "then", B, QUESTION]).generate(16, sorted(kamera.family.placeholder_ids))
    ours = next(item.run.token_ids for item in window._items.live if item.id == reply.span_id)
    assert list(ours) == [token for token in expected if token not in kamera.family.chat.stop_ids]
