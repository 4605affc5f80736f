"""Windows in a real engine, against its own full prefills and against our own runtime over the same records."""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
from conftest import VOCABULARY, distance, divergence, running, screen

from kamera_agent import DocumentContent, ImageContent, Kamera, TextContent
from kamera_sglang import Reply, SglangKamera, SglangWindow

QUESTION = "what changed?"
A, B, C, D = (screen(seed) for seed in range(4))
IMAGE_TOKENS = 26
DOCUMENT = DocumentContent("a text that is long enough to be moved as an image is, and to be read again and again")
Logprobs = dict[int, float]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def store(dtype: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(dtype)


@pytest.fixture(scope="module")
def engine(checkpoint: Path, store: Path, dtype: str) -> Iterator[Any]:
    with running(checkpoint, store, dtype=dtype) as engine:
        yield engine


@pytest.fixture(scope="module")
def kamera(engine: Any) -> Iterator[SglangKamera]:
    with SglangKamera(engine) as kamera:
        yield kamera


@pytest.fixture(scope="module")
def own(checkpoint: Path, store: Path, dtype: str) -> Iterator[Kamera]:
    """Our own runtime over the same store."""
    with Kamera.from_pretrained(checkpoint, store, "cpu", dtype, stale="keep", heal="never") as own:
        yield own


@pytest.fixture
def namespace() -> str:
    """One of this test alone: the store has nothing in it."""
    return uuid4().hex


class Noise(NamedTuple):
    """What rounding changes: bounds on the change of a logprob, and on the KL of two distributions."""

    logprob: float
    kl: float


@pytest.fixture(scope="module")
def noise(kamera: SglangKamera, own: Kamera) -> Noise:
    """Twice the largest changes between full prefills of some prompts.

    1. By the engine, in one pass and in two.
    2. By the engine and by our own runtime.
    """
    changes: list[list[tuple[float, float]]] = [[], []]
    for contents in ([A], [A, B], [C, "and then", A, B], [B, DOCUMENT, A], [A, B, C, D]):
        whole = full(kamera, *contents)
        window = kamera.window(namespace=uuid4().hex)
        look(window, *contents[:-1])
        others = look(window, *contents), own_look(own, uuid4().hex, *contents)
        for found, other in zip(changes, others, strict=True):
            found.append((distance(whole, other), divergence(whole, other)))
    most = [[2 * max(figures) for figures in zip(*found, strict=True)] for found in changes]
    print("\nnoise: engine {:.2g} (KL {:.1g}), engine and our runtime {:.2g} (KL {:.1g})".format(*most[0], *most[1]))
    return Noise(*(max(figures) for figures in zip(*most, strict=True)))


def look(window: SglangWindow, *contents: Any, question: str = QUESTION) -> Logprobs:
    """Next-token logprobs over contents and a question."""
    window.sync(map(of, contents))
    return window.logprobs(question, top=VOCABULARY)


def of(content: Any) -> Any:
    if isinstance(content, np.ndarray):
        return ImageContent(content)
    return TextContent(content) if isinstance(content, str) else content


def full(kamera: SglangKamera, *contents: Any) -> Logprobs:
    """The same by a full prefill of the engine."""
    return look(kamera.window(namespace=uuid4().hex), *contents)


def own_look(own: Kamera, namespace: str, *contents: Any) -> Logprobs:
    """The same by our own runtime, over what the store has."""
    window = own.window(namespace=namespace)
    window.sync(map(of, contents))
    return dict(enumerate(window.logits(QUESTION).float().log_softmax(-1).tolist()))


def origins(window: SglangWindow) -> list[tuple[str, bool]]:
    return [(row.origin, row.exact) for row in window.plan(QUESTION).rows if row.kind in ("image", "document")]


def tokens_of(reply: Reply, *, recalled: bool) -> int:
    """Tokens of a prompt that the store gives, or all others."""
    return sum(row.num_tokens for row in reply.plan.rows if (row.origin == "recalled") == recalled)


def test_recalling_the_same_chain_is_a_full_prefill(kamera: SglangKamera, namespace: str, noise: Noise) -> None:
    look(kamera.window(namespace=namespace), A, "and then", B)
    kamera.flush()
    window = kamera.window(namespace=namespace)
    recalled = look(window, A, "and then", B)
    assert origins(window) == [("recalled", True)] * 2
    assert distance(full(kamera, A, "and then", B), recalled) <= noise.logprob


def test_a_moved_image_is_that_of_our_own_runtime(
    kamera: SglangKamera, own: Kamera, namespace: str, noise: Noise
) -> None:
    window = kamera.window(namespace=namespace)
    look(window, A, B, C)
    kamera.flush()
    moved = look(window, B, "and then", C)
    assert origins(window) == [("recalled", False)] * 2
    assert distance(own_look(own, namespace, B, "and then", C), moved) <= noise.logprob
    exact = full(kamera, B, "and then", C)
    print(f"\nmoved: KL {divergence(exact, moved):.2g}, logprobs differ by up to {distance(exact, moved):.2g}")
    assert divergence(exact, moved) > 10 * noise.kl


def test_a_patched_image_is_that_of_our_own_runtime(
    kamera: SglangKamera, own: Kamera, namespace: str, noise: Noise
) -> None:
    # The first context makes the base of B, the second one a patch over it.
    for first in (A, C):
        look(kamera.window(namespace=namespace), first, B)
        kamera.flush()
    window = kamera.window(namespace=namespace)
    patched = look(window, C, "and then", B)
    row = [row for row in window.plan(QUESTION).rows if row.kind == "image"][-1]
    assert (row.origin, row.exact, row.match) == ("recalled", False, "ordered")
    assert row.error
    assert distance(own_look(own, namespace, C, "and then", B), patched) <= noise.logprob
    print(f"\npatched: KL {divergence(full(kamera, C, 'and then', B), patched):.2g}")


def test_blind_reuse_is_clearly_outside_the_noise(
    engine: Any, kamera: SglangKamera, namespace: str, noise: Noise
) -> None:
    for image in (A, B, D):
        look(kamera.window(namespace=namespace), image)
    kamera.flush()
    with SglangKamera(engine, fidelity="blind") as reckless:
        window = reckless.window(namespace=namespace)
        blind = look(window, C, A, B, D)
        assert origins(window)[1:] == [("blind", False)] * 3
    exact = full(kamera, C, A, B, D)
    print(f"\nblind: KL {divergence(exact, blind):.2g}, logprobs differ by up to {distance(exact, blind):.2g}")
    assert divergence(exact, blind) > 10 * noise.kl


def test_what_hugging_face_computed_is_a_hit(kamera: SglangKamera, own: Kamera, namespace: str, noise: Noise) -> None:
    expected = own_look(own, namespace, A, DOCUMENT, B)
    own.flush()
    window = kamera.window(namespace=namespace)
    recalled = look(window, A, DOCUMENT, B)
    assert origins(window) == [("recalled", True)] * 3
    assert distance(expected, recalled) <= noise.logprob


def test_what_the_engine_computed_is_a_hit_for_hugging_face(
    kamera: SglangKamera, own: Kamera, namespace: str, noise: Noise
) -> None:
    expected = look(kamera.window(namespace=namespace), A, DOCUMENT, B)
    kamera.flush()
    window = own.window(namespace=namespace)
    window.sync(map(of, (A, DOCUMENT, B)))
    chunks = [row for row in window.plan().rows if row.kind in ("image", "document")]
    assert [(row.origin, row.exact) for row in chunks] == [("recalled", True)] * 3
    assert distance(expected, own_look(own, namespace, A, DOCUMENT, B)) <= noise.logprob


def test_a_slide_computes_the_new_image_and_texts_only(kamera: SglangKamera, namespace: str) -> None:
    window = kamera.window(namespace=namespace)
    screens = [screen(seed) for seed in range(6)]
    for number in range(4):
        window.sync(map(of, screens[number : number + 3]))
        reply = window.generate(QUESTION, max_tokens=1)
        kamera.flush()
        # What is before the first image is in the engine's own cache, except at the first slide: with the first inexact
        # KV, the window leaves the cache that it shares.
        before = [*takewhile(lambda row: row.kind != "image", reply.plan.rows)] if number > 1 else []
        num_before = sum(row.num_tokens for row in before)
        assert tokens_of(reply, recalled=True) == (2 * IMAGE_TOKENS if number else 0)
        assert reply.tokens_computed == tokens_of(reply, recalled=False) - num_before


def test_a_window_that_only_grows_is_one_request(kamera: SglangKamera, namespace: str) -> None:
    window = kamera.window(namespace=namespace)
    window.sync(map(of, (A, "and then", B)))
    assert window.generate(QUESTION, max_tokens=4).num_requests == 1
    kamera.flush()
    reply = window.generate("and now?", max_tokens=4)
    assert reply.num_requests == 1
    assert reply.tokens_computed < IMAGE_TOKENS


def test_a_lost_record_is_computed(kamera: SglangKamera, namespace: str, noise: Noise) -> None:
    look(kamera.window(namespace=namespace), A, B)
    kamera.flush()
    window = kamera.window(namespace=namespace)
    window.sync(map(of, (A, B)))
    request = window._paged.request(QUESTION)
    kamera._store.delete([load.evidence.base for part in request.parts for load in part.loads])
    [*_, last] = window._compute(request, return_logprob=True, top_logprobs_num=VOCABULARY)
    [likeliest] = last.output["meta_info"]["output_top_logprobs"]
    assert distance(full(kamera, A, B), {token: logprob for logprob, token, _ in likeliest}) <= noise.logprob


def test_what_waits_for_the_store_is_bounded_in_bytes(engine: Any, namespace: str) -> None:
    """One chunk may always wait, and no second one where there is no room."""
    with SglangKamera(engine, memory_bytes=0) as small:
        with small._worker.busy:
            look(small.window(namespace=namespace), A, B)
        small.flush()
        window = small.window(namespace=namespace)
        window.sync(map(of, (A, B)))
        assert [origin for origin, _ in origins(window)] == ["recalled", "computed"]


def test_what_cannot_be_ordered_is_computed(
    kamera: SglangKamera, namespace: str, noise: Noise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    look(kamera.window(namespace=namespace), A, B)
    kamera.flush()
    exact = full(kamera, A, B)
    monkeypatch.setattr(kamera._client._mailbox, "_folder", tmp_path / "gone")
    window = kamera.window(namespace=namespace)
    assert distance(exact, look(window, A, B)) <= noise.logprob
    assert origins(window) == [("recalled", True)] * 2
