"""The events of one case, and the replies that every way gives after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.events import EVENTS, Script
from benchmarks.fidelity.situation import computed_before
from benchmarks.fidelity.state import KV
from benchmarks.real.documents import Question, draw_shelf
from benchmarks.real.live import Left, LiveDocuments
from benchmarks.real.replies import reply
from benchmarks.real.ways import PATCHED, Fitted, by_layer, patched
from benchmarks.real.weights import Weights
from kamera_agent.chunk import Chunk
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for

PLAYED = ("recall_all", "reorder_3", "slide_one", "drop_middle", "recall_front", "second_context")
# Of one document and of two.
NUM_ASKED = (4, 4)
# Shelves of strangers have seeds that no case has.
FIRST_STRANGER = 1_000_000
CACHE_BYTES = 1 << 20


class Subject(NamedTuple):
    """A model, and a bench of it."""

    weights: Weights
    bench: Bench

    @classmethod
    def of(cls, weights: Weights) -> Self:
        """The subject of a model."""
        return cls(weights, Bench(Engine(family_for(*weights), CACHE_BYTES)))


class Document(NamedTuple):
    """A text and its chunk."""

    text: str
    chunk: Chunk


def run_case(subject: Subject, seed: int, events: Sequence[str] = PLAYED) -> list[dict[str, Any]]:
    """JSON of events of a case."""
    shelf, strangers = draw_shelf(seed), draw_shelf(FIRST_STRANGER + seed)
    family = subject.bench.engine.family
    own, others = (
        [Document(text, family.document_chunk(text, "bench")) for text in drawn.texts] for drawn in (shelf, strangers)
    )
    return [_run_event(subject, event, seed, own, others, shelf.questions) for event in events]


def _run_event(
    subject: Subject,
    name: str,
    seed: int,
    own: Sequence[Document],
    strangers: Sequence[Document],
    questions: Sequence[Question],
) -> dict[str, Any]:
    """The event, replies after it, figures of patches by way and layer, and by way the share that is computed again."""
    bench, event = subject.bench, EVENTS[name]
    texts, chunks = zip(*own[: event.num_pictures], *strangers[: event.num_strangers], strict=True)
    script = event.script(seed, 0)
    held = computed_before(bench, chunks, script)
    full = bench.prefilled(tuple(chunks[index] for index in script.after))
    moved = {place: held[index] for place, index in enumerate(script.after)}
    fitted = {place: full.read(place) for place in moved} if event.num_strangers else moved
    bases = {"canonical": dict(enumerate(map(bench.canonical, full.chunks)))}
    if event.num_strangers:
        bases["first"] = moved
    variants: dict[str, Mapping[int, KV]] = {"full": {}, "moved": moved, "blind": bases["canonical"]}
    patches: dict[str, list[Fitted]] = {}
    for way, (base, settings) in PATCHED.items():
        if base in bases:
            patches[way] = [patched(kv, bases[base][place], settings) for place, kv in fitted.items()]
            variants[way] = {place: patch.kv for place, patch in enumerate(patches[way])}
    left = _live(subject.weights, script, texts)
    variants |= {way: dict(enumerate(there.kv)) for way, there in left.items()}
    return {
        "event": name,
        **reply(bench.engine.family, full, variants, _ask(questions, script.after, seed)),
        "patches": {way: by_layer(those) for way, those in patches.items()},
        "recomputed": {way: there.recomputed for way, there in left.items()},
    }


def _live(weights: Weights, script: Script, texts: Sequence[str]) -> dict[str, Left]:
    """What the defaults leave in the turn of the event, and once the window has healed."""
    with TemporaryDirectory() as folder:
        now, healed = LiveDocuments(weights, Path(folder), {}).leave(script, texts)
    return {"default": now, "settled": healed}


def _ask(questions: Sequence[Question], present: Sequence[int], seed: int) -> list[Question]:
    """Some questions that the documents present can answer: first those about one, then those about two."""
    rng = Random(seed)
    fitting = [question for question in questions if set(question.needs) <= set(present)]
    return [
        question
        for num_documents, num_asked in enumerate(NUM_ASKED, 1)
        for question in rng.sample([q for q in fitting if len(q.needs) == num_documents], num_asked)
    ]
