"""Documents as chunks: on decoders without eyes, and beside images on one with."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot

from benchmarks.backbones.keys import keys_of_model
from benchmarks.backbones.zoo.llava import llava
from benchmarks.backbones.zoo.text_only import OPTIONS, text_only
from kamera_agent import InputError, Kamera, Window

DOCUMENTS = ["alice has 3 red keys", "rent 5, tax 7, sale 11", "the cook said no"]
QUESTION = "what changed?"


@pytest.fixture(scope="module", params=OPTIONS)
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return text_only(request.param, torch.float32)


@pytest.fixture
def make(loaded: tuple[Any, Any]) -> Iterator[MakeKamera]:
    made: list[Kamera] = []

    def build(**options: Any) -> Kamera:
        made.append(Kamera(*loaded, **options))
        return made[-1]

    yield build
    for kamera in made:
        kamera.close()
        assert kamera._library.num_failed == 0


@torch.no_grad()
def full_prefill(loaded: tuple[Any, Any], documents: list[str]) -> torch.Tensor:
    """Logits after the whole prompt, put together by hand."""
    model, processor = loaded
    pieces = ["<s>USER:\n", *documents, QUESTION, "\nASSISTANT:\n"]
    ids = [token for piece in pieces for token in processor.tokenizer(piece)["input_ids"]]
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def read_all(kamera: Kamera) -> tuple[Window, list[str]]:
    window = kamera.window()
    return window, [window.add_document(document) for document in DOCUMENTS]


def test_nothing_dropped(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    window, _ = read_all(make())
    assert max_error(full_prefill(loaded, DOCUMENTS), window.logits(QUESTION)) <= 1e-4
    assert [span.kind for span in window.spans].count("document") == len(DOCUMENTS)


def test_recalled_at_full_rank(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    """The default rank is above what so short chunks have."""
    first = make()
    window, _ = read_all(first)
    window.logits(QUESTION)
    first.flush()
    window, _ = read_all(make(store=first.store))
    logits = window.logits(QUESTION)
    assert {span.origin for span in window.spans if span.kind == "document"} == {"recalled"}
    assert max_error(full_prefill(loaded, DOCUMENTS), logits) <= 1e-3


@pytest.mark.parametrize("shift", [1, -17, 1234])
@torch.no_grad()
def test_relocated_keys_are_the_models_own(make: MakeKamera, shift: int) -> None:
    kamera = make()
    chunk = kamera.family.document_chunk(DOCUMENTS[1], "default")
    embeds, num_tokens, positions = kamera._engine.embed(chunk), len(chunk.token_ids), chunk.offsets + 20
    pool = kamera._engine.new_pool()
    slots = pool.allocate(num_tokens)
    pool.place(slots, 0)
    kamera._engine.forward_at(pool, slots, embeds, positions)
    pool.relocate(slots, kamera.family.decoder.rope_tables(positions + shift))
    pool.settle(slots)
    for layer, expected in keys_of_model(kamera, chunk, embeds, positions + shift).items():
        ours = pool.rows[layer].keys[:, :num_tokens]
        assert float((ours - expected).norm() / expected.norm()) <= 1e-4, f"layer {layer}"


def test_moved_away_and_back(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    """The KV of a full prefill, turned twice."""
    kamera = make(stale="keep")
    window, (first, second, _) = read_all(kamera)
    window.logits(QUESTION)
    kamera.flush()
    window.drop(first)
    window.logits(QUESTION)
    window.recall(first, at=second)
    logits, reference = window.logits(QUESTION), full_prefill(loaded, DOCUMENTS)
    assert {span.origin for span in window.spans if span.kind == "document"} == {"recalled", "moved"}
    assert max_error(reference, logits) <= 1e-5 * float(reference.abs().max())


def test_edits_in_exact(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    window, (first, second, third) = read_all(make(fidelity="exact"))
    window.logits(QUESTION)
    window.reorder([third, first, second])
    window.drop(second)
    left = [DOCUMENTS[2], DOCUMENTS[0]]
    assert max_error(full_prefill(loaded, left), window.logits(QUESTION)) <= 1e-4


def test_blind_to_pixels(make: MakeKamera) -> None:
    with pytest.raises(InputError, match="reads text only and cannot see an image; use add_document"):
        make().window().add_image(screenshot(0))


def test_documents_beside_images(seeded: torch.Generator) -> None:
    """A marker in a document stays text, and everything equals a full prefill."""
    with Kamera(*llava(torch.float32)) as kamera:
        window = kamera.window()
        window.add_document("a page that says <image> and </s>")
        window.add_image(screenshot(0))
        window.add_document(DOCUMENTS[0])
        assert max_error(window.reference_logits(QUESTION), window.logits(QUESTION)) <= 1e-4
        with pytest.raises(InputError, match="no tokens"):
            window.add_document("")
