"""The fidelity benchmark on a few cases, against plain Hugging Face and against figures computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.cases import POCKET_GROUND, draw_case
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.methods import METHODS, Patch, Recompute
from benchmarks.fidelity.report import as_markdown, backbones_as_markdown
from benchmarks.fidelity.residue import decompose, energy_ranks, patched, share_basis
from benchmarks.fidelity.run import Answer, Result, Subject, run_case
from benchmarks.fidelity.score import make_cells, summarise
from kamera_agent.chunk import TextRun
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.kernels.layers import LayerKV


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(Engine(family_for(*load(str(WEIGHTS), device="cpu")), 1 << 26))


def kv(seed: int, num_tokens: int = 6) -> tuple[LayerKV, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(LayerKV(*torch.randn(2, 2, num_tokens, 4, generator=generator)) for _ in range(3))


@pytest.mark.parametrize("scene", ["changes", "moves"])
def test_the_full_prefill_is_hugging_faces(bench: Bench, scene: str) -> None:
    case = draw_case(POCKET_GROUND, scene, 3, seed=1)
    chunks = [bench.chunk(picture) for picture in case.window]
    question = bench.ask(next(iter(case.questions.values())).text)
    window = bench.window(chunks)
    window.compute(range(3))
    family = bench.engine.family
    opening = (*family.tokens.encode(family.chat.default_system), *family.chat.turn("system", "user"))
    runs = [TextRun(family.chat.anchor_ids), TextRun(opening), *chunks, question]
    assert float((window.logits(question)[0] - bench.engine.reference_logits(runs)).abs().max()) < 1e-3


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_plays(bench: Bench, event: str) -> None:
    results = run_case(Subject(bench, METHODS, torch.ones(5, 128)), "changes", event, seed=0)
    assert [result.task for result in results] == ["count", "read", "find"]
    result = results[0]
    assert set(METHODS) | {"full"} <= set(result.answers)
    assert result.answers["full"].kl == 0
    if EVENTS[event].num_gone == 0 and not EVENTS[event].reorders:
        assert result.answers["full_rank"].kl < 1e-6
    shares = [result.answers[f"patch_{percent}pct"].bytes_share for percent in (6, 12, 25)]
    assert all(0.95 * limit < share <= limit for share, limit in zip(shares, (0.06, 0.12, 0.25), strict=True))
    assert result.answers["recompute_15pct"].recomputed == pytest.approx(0.15, abs=0.01)


def test_recomputing_every_token_is_computing_the_chunk(bench: Bench) -> None:
    case = draw_case(POCKET_GROUND, "two_joins", 2, seed=3)
    chunks = [bench.chunk(picture) for picture in case.window]
    window, again = bench.window(chunks), bench.window(chunks)
    window.compute([0, 1])
    again.compute([0])
    again.put(1, bench.engine.canonical(chunks[1]))
    again.recompute({1: range(len(chunks[1].token_ids))})
    for (keys, values, *_), (others, more, *_) in zip(window.read(1), again.read(1), strict=True):
        assert float((keys - others).abs().max()) < 1e-4
        assert float((values - more).abs().max()) < 1e-4


def test_a_patch_of_full_rank_gives_the_conditioned_kv() -> None:
    residue = decompose(kv(1), kv(2))
    for (keys, values, *_), (others, more, *_) in zip(patched(residue, Patch().ranks(residue)), kv(1), strict=True):
        torch.testing.assert_close(keys, others)
        torch.testing.assert_close(values, more)


def test_a_patch_of_rank_one_is_numpys() -> None:
    residue = decompose(kv(1), kv(2))
    keys, values, *_ = patched(residue, [1, 1, 1])[0]
    change = [
        np.concatenate([a.permute(1, 0, 2).reshape(6, 8).numpy() for a in side[0][:2]], axis=1)
        for side in (kv(1), kv(2))
    ]
    u, s, v = np.linalg.svd(change[0] - change[1])
    best = change[1] + s[0] * np.outer(u[:, 0], v[0])
    ours = np.concatenate(
        [keys.permute(1, 0, 2).reshape(6, 8).numpy(), values.permute(1, 0, 2).reshape(6, 8).numpy()], 1
    )
    np.testing.assert_allclose(ours, best, atol=1e-5)


def test_ranks_of_byte_shares() -> None:
    """50 tokens, 128 columns: a rank costs 178 numbers of 6,400."""
    residue = decompose(kv(1, 50), kv(2, 50))
    wide = residue._replace(basis=residue.basis.new_zeros(3, 50, 128))
    assert [Patch(share=share).ranks(wide)[0] for share in (0.06, 0.12, 0.25)] == [2, 4, 8]
    # Half of 178, and 2 for the scale: 91 numbers of two bytes.
    assert [Patch(share=share, int8=True).ranks(wide)[0] for share in (0.06, 0.12, 0.25)] == [4, 8, 17]
    # The basis counts half.
    shared = wide._replace(basis_bytes=0.5)
    assert [Patch(share=share).ranks(shared)[0] for share in (0.06, 0.12, 0.25)] == [3, 6, 14]


def test_energy_ranks_by_hand() -> None:
    residue = decompose(kv(1), kv(2))
    strength = torch.tensor([[3.0, 1.0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2], [1, 0, 0, 0, 0, 0]])
    assert energy_ranks(residue._replace(strength=strength)).tolist() == [1, 6, 1]


def test_a_shared_basis_serves_both_conditionings() -> None:
    """Two residues of six rows each: twelve components hold both."""
    residue = share_basis(kv(1), kv(3), kv(2))
    for (keys, values, *_), (others, more, *_) in zip(patched(residue, [12] * 3), kv(1), strict=True):
        torch.testing.assert_close(keys, others)
        torch.testing.assert_close(values, more)
    first, second = residue.basis[:, :12], share_basis(kv(3), kv(1), kv(2)).basis[:, :12]
    torch.testing.assert_close(first.mT @ first, second.mT @ second)


def test_int8_factors_are_off_by_half_a_step_at_most() -> None:
    residue = decompose(kv(1), kv(2))
    exact, rounded = (patched(residue, [1, 1, 1], int8=int8) for int8 in (False, True))
    for layer in range(3):
        left, basis = residue.left[layer, :, 0].abs(), residue.basis[layer, 0].abs()
        worst = float(left.max() * basis.max()) * (1 / 127 + 1 / 4 / 127**2)
        assert 0 < float((exact[layer].keys - rounded[layer].keys).abs().max()) <= worst


def test_tokens_to_recompute() -> None:
    canonical = kv(1)
    keys, values, *_ = canonical[1]
    moved = keys.clone()
    moved[:, [2, 5]] += 3
    residue = decompose((canonical[0], LayerKV(moved, values), canonical[2]), canonical)
    assert Recompute(first=4).tokens(residue) == [0, 1, 2, 3]
    assert Recompute(share=0.34).tokens(residue) == [2, 5]


def test_the_tables_in_the_documents_are_those_of_the_results() -> None:
    root = Path(__file__).parents[2]
    results, docs = root / "benchmarks" / "results", root / "docs"
    one = json.loads((results / "2026-11-25-cpu-fidelity.json").read_text())
    many = json.loads((results / "2026-11-25-cpu-fidelity-backbones.json").read_text())
    assert (docs / "fidelity_tables.md").read_text() == as_markdown(one["cells"]) + "\n"
    assert (docs / "fidelity_backbones.md").read_text() == backbones_as_markdown(many) + "\n"


def answers(**right: bool) -> dict[str, Answer]:
    return {name: Answer(hit, hit, 0.0 if hit else 2.0, 0.1, 0.0) for name, hit in right.items()}


def test_figures_by_hand() -> None:
    """Four cases. Blind misses three, and the patch repairs two of them."""
    hits = [(True, True), (False, True), (False, True), (False, False)]
    results = [
        Result("diff", "recall_all", answers(full=True, blind=blind, patch_12pct=patch), [0.5], [1.0])
        for blind, patch in hits
    ]
    row = make_cells(results)["recall_all"]
    assert row["blind"]["diff"]["accuracy"] == 0.25
    assert row["patch_12pct"]["diff"] == {
        "cases": 4,
        "accuracy": 0.75,
        "agreement": 0.75,
        "flips": 3,
        "flips_repaired": pytest.approx(2 / 3),
        "kl": 0.5,
        "bytes_share": pytest.approx(0.1),
        "recomputed": 0.0,
    }


def test_the_summary_by_hand() -> None:
    """Blind misses every second case of all tasks but read and find. Orbit misses one diff of four."""
    results = []
    for task in TASKS:
        for number in range(4):
            blind = task in ("read", "find") or number % 2 == 0
            orbit = (task, number) != ("diff", 0)
            by_method = answers(
                full=True, blind=blind, patch_12pct=number > 0, patch_25pct=True, ideal_25pct=True, orbit=orbit
            )
            results.append(Result(task, "recall_all", by_method, [0.5], [1.0]))
    summary = summarise(make_cells(results))
    assert summary["full"] == dict.fromkeys(TASKS, 1.0)
    assert summary["blind"]["binding_kept"] == 0.5
    assert summary["patch_12pct"]["worst_kept"] == 0.75
    assert summary["patch_25pct"]["worst_kept"] == 1.0
    assert summary["orbit"]["minus_exact_points"] == -25.0


def test_a_task_that_a_full_prefill_never_answers_keeps_no_share() -> None:
    """One case per task. Full answers all but count, blind only diff."""
    results = [
        Result(
            task,
            "recall_all",
            answers(
                full=task != "count",
                blind=task == "diff",
                patch_12pct=True,
                patch_25pct=True,
                ideal_25pct=True,
                orbit=True,
            ),
            [0.5],
            [1.0],
        )
        for task in TASKS
    ]
    summary = summarise(make_cells(results))
    assert summary["blind"]["binding_kept"] == 0.25
    assert summary["patch_12pct"]["worst_kept"] == 1.0


def test_a_question_about_now_is_a_task_of_its_own_where_shots_change_places() -> None:
    for seed in range(6):
        track = draw_case(POCKET_GROUND, "moves", 3, seed, reorders=True).questions["track"]
        now = draw_case(POCKET_GROUND, "now", 3, seed, reorders=True).questions["now"]
        assert (track.needs, now.needs) == ((0, 1, 2), (2,))
    assert {draw_case(POCKET_GROUND, "moves", 3, seed).questions["track"].needs for seed in range(12)} == {
        (0, 1, 2),
        (2,),
    }
