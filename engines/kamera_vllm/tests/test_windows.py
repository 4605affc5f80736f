"""Images that move, come back and are patched under vLLM, against full prefills and our own runtime."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import BLOCK, MODEL, Ours, Runner, apart, distribution, kl, screens, wait_for

from kamera_agent import Kamera, TextContent

QUESTION = "Which price changed?"
THEN = TextContent("And then:")
A, B, C, D = screens(1)


@pytest.fixture(scope="module")
def ours(runner: Runner, folder: Path) -> Iterator[Ours]:
    dtype = runner.kamera.blueprint.rotation.dtype
    with Kamera.from_pretrained(MODEL, folder, "cpu", dtype, heal="never") as kamera:
        yield Ours(kamera)


@pytest.fixture(scope="module")
def noise(runner: Runner, ours: Ours) -> float:
    """Twice as far as full prefills of windows are apart, in nats: those of the engine, and of Hugging Face."""
    twice, others, divergences = list[float](), list[float](), list[float]()
    for contents in [[*screens(seed, 3), *end] for seed in (1, 5, 7, 11, 13) for end in ([], [THEN])]:
        once, again = (distribution(runner.compute(contents, QUESTION)) for _ in range(2))
        full = ours.full(contents, QUESTION)
        twice.append(apart(once, again))
        others.append(apart(once, full))
        divergences.append(kl(full, once))
    dtype = runner.kamera.blueprint.rotation.dtype
    print(f"{dtype}: twice {max(twice):.2g}, Hugging Face {max(others):.2g} nats, KL {max(divergences):.2g}")
    return 2 * max(twice + others)


def test_what_is_new_is_computed_as_by_hugging_face(runner: Runner, ours: Ours, noise: float) -> None:
    contents = [*screens(5, 2), THEN]
    _, answer = runner.ask(runner.window(), contents, QUESTION)
    assert answer.tokens_computed == answer.tokens
    assert apart(distribution(answer), ours.full(contents, QUESTION)) <= noise


def test_a_recall_of_the_same_chain_is_the_full_prefill_of_the_engine(runner: Runner, noise: float) -> None:
    runner.ask(runner.window(), [A, B, THEN, C], QUESTION)
    request, answer = runner.ask(runner.window(), [A, B, THEN, C], QUESTION)
    assert request.plan.rows[-1].exact
    assert [len(part.claim) > 0 for part in request.parts] == [False, True, True]
    assert apart(distribution(answer), distribution(runner.compute([A, B, THEN, C], QUESTION))) <= noise
    assert answer.tokens_claimed == sum(len(image.token_ids) for image in request.parts[-1].images)
    assert answer.tokens_computed == answer.tokens - answer.tokens_claimed


def test_a_row_that_begins_with_a_block_is_recalled(runner: Runner, noise: float) -> None:
    """vLLM's own pages end there, so the request before it leaves no tokens over."""
    image, *_ = screens(19)
    for length in range(1, 2 * BLOCK):
        contents = [TextContent("so " * length), image]
        window = runner.window()
        window.sync(contents)
        if window.request(QUESTION).parts[-1].saves[0].first % BLOCK == 0:
            break
    runner.ask(runner.window(), contents, QUESTION)
    request, answer = runner.ask(runner.window(), contents, QUESTION)
    claim = request.parts[-1].claim
    assert claim.start % BLOCK == 0
    assert answer.tokens_claimed == len(claim) == len(request.parts[-1].images[0].token_ids)
    assert answer.tokens_computed == answer.tokens - answer.tokens_claimed
    assert apart(distribution(answer), distribution(runner.compute(contents, QUESTION))) <= noise


def test_a_moved_image_is_that_of_our_own_runtime(runner: Runner, ours: Ours, noise: float) -> None:
    window = runner.window()
    runner.ask(window, [A, B, THEN, C], QUESTION)
    request, answer = runner.ask(window, [B, THEN, C], QUESTION)
    moved, full = distribution(answer), ours.full([B, THEN, C], QUESTION)
    assert [row.origin for row in request.plan.rows if row.kind == "image"] == ["recalled"] * 2
    assert answer.tokens_claimed == sum(len(image.token_ids) for image in request.parts[-1].images)
    assert answer.tokens_computed == answer.tokens - answer.tokens_claimed == request.plan.num_computed
    assert apart(moved, ours.over(request)) <= noise
    print(
        f"moved: {apart(moved, ours.over(request)):.2g} nats from our own runtime, KL from full {kl(full, moved):.2g}"
    )


def test_a_patched_image_is_that_of_our_own_runtime_and_blind_reuse_is_not(
    runner: Runner, ours: Ours, noise: float
) -> None:
    one, two, three = screens(7, 3)
    runner.ask(runner.window(), [one, two], QUESTION)
    request, _ = runner.ask(runner.window(), [three, two], QUESTION)
    assert request.plan.rows[-3].origin == "computed", "it has not seen what is before it"
    request, answer = runner.ask(runner.window(), [three, two], QUESTION)
    [_, load] = request.parts[-1].loads
    assert load.evidence.patch
    patched, full = distribution(answer), distribution(runner.compute([three, two], QUESTION))
    assert apart(patched, ours.over(request)) <= noise
    blind = distribution(runner.ask(runner.blind(), [two, one], QUESTION)[1])
    reference = distribution(runner.compute([two, one], QUESTION))
    # What rounding changes differs from window to window, most where the answer is uncertain.
    assert kl(reference, blind) > 10 * kl(ours.full([two, one], QUESTION), reference)
    print(f"patched: {apart(patched, ours.over(request)):.2g} nats from our own runtime, KL {kl(full, patched):.2g}")
    print(f"blind: KL {kl(reference, blind):.2g}")


def test_one_store_serves_hugging_face_and_vllm_both_ways(runner: Runner, ours: Ours, noise: float) -> None:
    one, two, three = screens(11, 3)
    ours.compute([one, two], QUESTION)
    request, answer = runner.ask(runner.window(), [one, two], QUESTION)
    assert {row.origin for row in request.plan.rows if row.kind == "image"} == {"recalled"}
    assert answer.tokens_claimed
    assert apart(distribution(answer), ours.full([one, two], QUESTION)) <= noise
    runner.ask(runner.window(), [one, two, three], QUESTION)
    window = ours.kamera.window()
    window.sync([one, two, three])
    rows = [row for row in window.plan().rows if row.kind == "image"]
    assert [(row.origin, row.exact) for row in rows] == [("recalled", True)] * 3
    assert apart(window.logits(QUESTION).log_softmax(-1), ours.full([one, two, three], QUESTION)) <= noise


def test_what_the_store_has_lost_is_computed(runner: Runner, ours: Ours, noise: float) -> None:
    contents = [*screens(13, 2), THEN]
    ours.compute(contents, QUESTION)
    window = runner.window()
    window.sync(contents)
    request = window.request(QUESTION)
    # After the plan, and before the engine looks.
    window.request = lambda question: request
    keys = [load.evidence.base for part in request.parts for load in part.loads if load.evidence.base]
    runner.kamera.store.delete(keys)
    ours.kamera.store.flush()
    runner.kamera.store.flush()
    answer = runner.run(window.generate(QUESTION, max_tokens=1, logprobs=-1))
    assert apart(distribution(answer), ours.full(contents, QUESTION)) <= noise


def test_a_conversation_goes_on(runner: Runner, ours: Ours) -> None:
    """Greedy replies over windows that slide are those of our own runtime with the same settings."""
    contents, asked = screens(17, 4), "Which price changed?"
    window = runner.window()
    window.sync(contents[:3])
    first = runner.run(window.generate(asked, max_tokens=8))
    with_vllm = window.request("And now?").token_ids
    theirs = ours.kamera.window()
    theirs.sync(contents[:3])
    reply = theirs.generate(asked, max_tokens=8)
    assert first.text == reply.text
    theirs.add_text("And now?")
    layout = theirs._layout.places(theirs._items.live, "reply")
    assert with_vllm == tuple(token for place in layout for token in place.item.run.token_ids)


def test_pages_of_plain_requests_come_back_exactly(runner: Runner) -> None:
    """Requests that know nothing of windows, such as those of `vllm serve`."""
    text = [*range(5, 5 + 3 * BLOCK + 7)]
    cold = runner.plain(text)
    wait_for(lambda: runner.num_pages() >= 3)
    runner.forget()
    warm = runner.plain(text)
    assert (cold.num_cached_tokens, warm.num_cached_tokens) == (0, 3 * BLOCK)
    assert torch.equal(runner.logprobs(cold), runner.logprobs(warm))
    num_pages = runner.num_pages()
    runner.forget()
    other = runner.plain([text[0] + 1, *text[1:]])
    assert other.num_cached_tokens == 0
    wait_for(lambda: runner.num_pages() == num_pages + 3)
