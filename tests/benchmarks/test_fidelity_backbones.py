"""Backbones of the fidelity benchmark: they are built, trained a little and loaded, and compared with Hugging Face."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fidelity.backbones.ground import GROUND, TASKS, StemBench, ask_in_stems
from benchmarks.fidelity.backbones.models import BACKBONES, COLUMNS, build
from benchmarks.fidelity.backbones.symbols import Symbols
from benchmarks.fidelity.backbones.training import COURSE, Effort, is_backbone, load_backbone, train
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.cases import draw_case
from benchmarks.fidelity.methods import HYBRID_METHODS, PLAIN_METHODS
from benchmarks.fidelity.report import backbones_as_markdown
from benchmarks.fidelity.run import Subject, run_case
from kamera_agent.chunk import TextRun
from kamera_agent.pocket.tasks import ask
from kamera_agent.pocket.words import SHOWN
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.families.gemma4 import Gemma4
from training.decoding import Decoder, Lessons, draw_windows
from training.start import word_ids

LITTLE = Effort(pictures=40, read_steps=2, task_steps=2)


@pytest.fixture(scope="module", params=BACKBONES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return StemBench(Engine(family_for(*build(request.param, seed=3)), 1 << 26), GROUND)


def test_the_full_prefill_is_hugging_faces(bench: Bench) -> None:
    """A picture has one placeholder per cell. A window of pictures and a question gives the logits of one prefill."""
    case = draw_case(GROUND, "joins", 3, range(3), seed=1)
    chunks = [bench.chunk(picture) for picture in case.pictures]
    family, question = bench.engine.family, bench.ask(case.questions["join2"].text)
    assert [int(family.placeholders(chunk).sum()) for chunk in chunks] == [COLUMNS**2] * 3
    window = bench.window(chunks)
    window.compute(range(3))
    opening = (*family.tokens.encode(family.chat.default_system), *family.chat.turn("system", "user"))
    runs = [TextRun(family.chat.anchor_ids), TextRun(opening), *chunks, question]
    assert float((window.logits(question) - bench.engine.reference_logits(runs)).abs().max()) < 1e-3


def test_a_case_plays(bench: Bench) -> None:
    methods = HYBRID_METHODS if bench.engine.family.decoder.recurrence else PLAIN_METHODS
    (result,) = run_case(Subject(bench, methods, None, {}), "one_change", "second_context", seed=0)
    assert result.task == "diff"
    assert set(result.answers) == {"full", *methods}
    assert result.answers["blind"].kl > 1e-4
    assert result.answers["full_rank"].kl < 1e-5
    assert all(
        0 < result.answers[f"{base}_{n}pct"].bytes_share <= n / 100 for base, n in (("canonical", 25), ("base", 12))
    )


def test_a_window_of_held_kv_is_that_of_the_runtime(bench: Bench) -> None:
    """1. Two of three chunks, as computed after the first. 2. The question, computed by the engine in that window."""
    case = draw_case(GROUND, "joins", 3, range(3), seed=2)
    chunks, question = [bench.chunk(picture) for picture in case.pictures], bench.ask(case.questions["join2"].text)
    before, window = bench.prefilled(tuple(chunks)), bench.window(chunks[1:])
    for index in range(2):
        window.put(index, before.read(index + 1))
    ours = window.logits(question)
    fresh = bench.prefilled(tuple(chunks[1:])).logits(question)
    expected = bench.engine.prefill(window._pool, [window._place(question)]).logits
    assert float((ours - expected).abs().max()) < 1e-4
    assert float((ours - fresh).abs().max()) > 1e-2


@torch.no_grad()
def test_sliding_layers_in_training_see_what_hugging_face_lets_them_see() -> None:
    """1. Questions side by side and in a row. 2. Each alone after what it sees, with Hugging Face's masks."""
    family = family_for(*build("gemma4", seed=3))
    assert isinstance(family, Gemma4)
    words = family.text_embeds(word_ids(family.processors.tokenizer, SHOWN))
    symbols = Symbols(words, 1, seed=3)
    decoder, rng = Decoder(family), np.random.default_rng(11)
    windows = draw_windows(3, COURSE, rng, GROUND.looks)
    batch = Lessons(family, symbols, ask_in_stems, asked=()).batch(windows, rng, TASKS)
    output = decoder._run(batch, symbols.clean).last_hidden_state
    for task, row, place in zip(batch.tasks, *batch.targets[:2], strict=True):
        if task is None:
            continue
        seen = batch.mask[row, 0, place].nonzero().flatten()
        ids, features = batch.token_ids[row, seen], batch.features[row, seen]
        embeds = family.text_embeds(ids).masked_scatter(
            (features >= 0)[:, None], symbols.clean[features[features >= 0]]
        )
        padded = ids.masked_fill(features >= 0, family.processors.tokenizer.pad_token_id)
        first, extras = family.unpack(family.pack(embeds[None], padded[None]))
        expected = family.decoder.module(
            inputs_embeds=first, position_ids=batch.positions[0, row, seen][None], **extras
        )
        torch.testing.assert_close(output[row, place], expected.last_hidden_state[0, -1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["qwen3_vl", "llava-deepseek_v3", "qwen3_5", "gemma4"])
def test_a_training_is_written_read_and_gone_on_with(tmp_path: Path, name: str) -> None:
    """1. Two steps of each stage. 2. The folder is a backbone with other weights. 3. Resuming changes nothing."""
    train(tmp_path, name, 1, LITTLE)
    assert is_backbone(tmp_path)
    assert not is_backbone(tmp_path / "nothing")
    card, model = json.loads((tmp_path / "backbone.json").read_text()), load_backbone(tmp_path).model
    assert set(card["grades"]) == {"reading", *TASKS}
    raw = dict(build(name, 1)[0].named_parameters())
    moved = {part for part, weight in model.named_parameters() if not torch.equal(weight, raw[part])}
    assert any("language_model.layers.0" in part for part in moved)
    assert any("vis" in part for part in moved)
    train(tmp_path, name, 1, LITTLE)
    again = dict(load_backbone(tmp_path).model.named_parameters())
    assert all(torch.equal(weight, again[part]) for part, weight in model.named_parameters())
    assert json.loads((tmp_path / "backbone.json").read_text()) == card


@pytest.mark.parametrize("seed", range(5))
def test_stems_ask_what_sentences_ask(seed: int) -> None:
    window = draw_case(GROUND, "joins", 3, range(3), seed).pictures
    sentences = [question for question in ask(window) if question.task in TASKS]
    stems = ask_in_stems(window)
    assert [(q.task, q.answer, q.subject, q.needs) for q in stems] == [
        (q.task, q.answer, q.subject, q.needs) for q in sentences
    ]
    assert len({question.text for question in stems}) == len({question.text for question in sentences})
    assert all(question.text.endswith(f" {question.subject}") for question in stems if question.subject)


def test_the_tables_by_hand() -> None:
    """Two seeds of one backbone. Blind keeps nothing of diff in one and half in the other; the rest equals full."""

    def report(blind: float) -> dict[str, object]:
        methods = ("full", "canonical_25pct", "canonical_12pct", "canonical_6pct", "recompute_15pct", "blind", "orbit")
        full = {"accuracy": 0.8, "kl": 0.25, "kept": 1.0}
        row = {method: {task: dict(full) for task in ("read", "diff")} for method in methods}
        row["blind"]["diff"]["accuracy"] = blind
        row["canonical_6pct"]["diff"]["kept"] = 0.9 - blind
        other = row | {"base_6pct": row["canonical_6pct"], "base_12pct": row["full"]}
        conditions = {"attention": "MHA", "num_parameters": 1200}
        return {"conditions": conditions, "cells": {"recall_all": row, "second_context": other}}

    kept, worst, accuracies, others = backbones_as_markdown({"llava-1": report(0.0), "llava-2": report(0.4)}).split(
        "\n\n"
    )
    assert kept.splitlines()[2] == "| llava | MHA | 1,200 | 0.25 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |"
    assert worst.splitlines()[2] == "| llava | 0.50 | 1.00 | 0.50 | 1.00 | 1.00 |"
    assert (len(accuracies.splitlines()), len(others.splitlines())) == (2 + 7, 2 + 9)
    head, _, first, *_, last = accuracies.splitlines()
    assert head == "| recall_all | method | read | diff | KL |"
    assert first == "| llava | full prefill | 0.800 | 0.800 | 0.2500 |"
    assert last == "| llava | blind | 0.800 | 0.200 | 0.2500 |"
