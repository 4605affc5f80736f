"""The fidelity benchmark on a few cases, against plain Hugging Face and against figures computed by hand."""

import json
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.cases import POCKET_GROUND, draw_case
from benchmarks.fidelity.events import EVENTS, Script
from benchmarks.fidelity.live import Live
from benchmarks.fidelity.methods import MAIN, METHODS, Patch, Recompute
from benchmarks.fidelity.report import as_markdown, backbones_as_markdown
from benchmarks.fidelity.residue import decompose, energy_ranks, patched, share_basis
from benchmarks.fidelity.run import Answer, Result, Subject, run_case
from benchmarks.fidelity.score import make_cells, summarise
from benchmarks.fidelity.shards import Job, kept_shard
from benchmarks.fidelity.situation import Situation, happen
from benchmarks.fidelity.split_report import rank_table, split_table
from benchmarks.fidelity.state import KV
from kamera_agent.chunk import TextRun
from kamera_agent.pocket.screen import Shot
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.words import COUNTS
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.telemetry.drift import divergence


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(Engine(family_for(*load(str(WEIGHTS), device="cpu")), 1 << 26))


@pytest.fixture(scope="module")
def lives() -> dict[str, Live]:
    return {
        "exact": Live(str(WEIGHTS), fidelity="exact", heal="never"),
        "never": Live(str(WEIGHTS), heal="never"),
        "default": Live(str(WEIGHTS)),
    }


def kv(seed: int, num_tokens: int = 6) -> tuple[LayerKV, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(LayerKV(*torch.randn(2, 2, num_tokens, 4, generator=generator)) for _ in range(3))


def distance(one: KV, other: KV) -> float:
    """The largest difference of two KVs."""
    return max(
        float((mine - theirs).abs().max())
        for layer, twin in zip(one, other, strict=True)
        for mine, theirs in ((layer.keys, twin.keys), (layer.values, twin.values))
    )


@pytest.mark.parametrize("scene", ["changes", "moves"])
def test_the_full_prefill_is_hugging_faces(bench: Bench, scene: str) -> None:
    case = draw_case(POCKET_GROUND, scene, 3, range(3), seed=1)
    chunks = [bench.chunk(picture) for picture in case.pictures]
    question = bench.ask(next(iter(case.questions.values())).text)
    window = bench.prefilled(tuple(chunks))
    family = bench.engine.family
    opening = (*family.tokens.encode(family.chat.default_system), *family.chat.turn("system", "user"))
    runs = [TextRun(family.chat.anchor_ids), TextRun(opening), *chunks, question]
    assert float((window.logits(question) - bench.engine.reference_logits(runs)).abs().max()) < 1e-3


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_plays(bench: Bench, event: str) -> None:
    results = run_case(Subject(bench, METHODS, torch.ones(5, 128), {}), "changes", event, seed=0)
    assert [result.task for result in results] == ["count", "read", "find"]
    result = results[0]
    over_bases = {"base_6pct", "base_12pct"} if event == "second_context" else set()
    assert set(result.answers) == {"full", *METHODS} - ({"base_6pct", "base_12pct"} - over_bases)
    assert result.answers["full"].kl == 0
    if event in ("recall_one", "recall_all"):
        assert result.answers["moved"].stale == 0
        assert result.answers["moved"].kl < 1e-6
    else:
        assert result.answers["moved"].kl > 1e-6
    if event in ("recall_one", "recall_all", "second_context"):
        assert result.answers["full_rank"].kl < 1e-6
    shares = [result.answers[f"{name}pct"].bytes_share for name in ("canonical_6", "canonical_12", "canonical_25")]
    assert all(0.95 * limit < share <= limit for share, limit in zip(shares, (0.06, 0.12, 0.25), strict=True))
    assert result.answers["recompute_15pct"].recomputed == pytest.approx(0.15, abs=0.01)
    quarter, refreshed = result.answers["refresh_25pct"], result.answers["refresh"]
    assert quarter.recomputed == pytest.approx(0.25 * quarter.stale, abs=0.01)
    assert 0.3 * refreshed.stale <= refreshed.recomputed <= refreshed.stale
    (other, *_) = run_case(Subject(bench, METHODS, None, {}), "changes", event, seed=0, studied=False)
    assert set(other.answers) == {"full", *MAIN} - ({"base_6pct", "base_12pct"} - over_bases)


def situation(bench: Bench, event: str, scene: str, seed: int) -> tuple[Situation, list[Any]]:
    """A situation, and the chunks of its case."""
    case = EVENTS[event].case(POCKET_GROUND, scene, seed)
    return happen(bench, EVENTS[event], case, seed), [bench.chunk(picture) for picture in case.pictures]


def computed(bench: Bench, *chunks: Any) -> KV:
    """KV of the last chunk after the others."""
    window = bench.window(chunks)
    window.compute(range(len(chunks)))
    return window.read(len(chunks) - 1)


def test_a_chunk_in_front_was_not_seen_by_the_others(bench: Bench) -> None:
    (full, reused, lacking, held, fitted, *_), (a, b, c) = situation(bench, "recall_front", "moves", seed=1)
    assert full.chunks == [a, b, c]
    assert reused == [0, 1, 2]
    assert lacking == [1, 2]
    assert fitted is held
    for index, others in enumerate(([a], [b], [b, c])):
        assert distance(held[index], computed(bench, *others)) < 1e-4


def test_the_base_of_a_second_context_has_seen_strangers(bench: Bench) -> None:
    (_, _, lacking, held, fitted, *_), (a, b, c, *strangers) = situation(bench, "second_context", "joins", seed=1)
    assert len(strangers) == 2
    # The first one comes after nothing, so it has only lost the strangers.
    assert lacking == [1, 2]
    for index, chunk in enumerate((a, b, c)):
        assert distance(held[index], computed(bench, *strangers, chunk)) < 1e-4
        assert distance(fitted[index], computed(bench, *(a, b, c)[: index + 1])) < 1e-4


def test_the_last_of_a_late_recall_has_seen_survivors(bench: Bench) -> None:
    """The survivors still carry the first chunk, and the last is computed after their KV."""
    (_, _, lacking, held, *_), (a, b, c, d) = situation(bench, "recall_after_slide", "joins", seed=1)
    assert lacking == []
    assert distance(held[1], computed(bench, a, b, c)) < 1e-4
    window = bench.window([b, c, d])
    window.put(0, computed(bench, a, b))
    window.put(1, computed(bench, a, b, c))
    window.compute([2])
    assert distance(held[2], window.read(2)) < 1e-4
    assert distance(held[2], computed(bench, b, c, d)) > 1e-2


@pytest.mark.parametrize("event", EVENTS)
def test_questions_are_about_what_is_left(event: str) -> None:
    """ "How often" counts the colours of the remaining shots, and "now" is the last of them."""
    for seed in range(12):
        case = EVENTS[event].case(POCKET_GROUND, "moves", seed)
        shots = [case.pictures[index] for index in EVENTS[event].script_of(case, seed).after]
        often, now = case.questions["track"], case.questions["now"]
        seen = [
            mark.colour
            for shot in shots
            if isinstance(shot, Shot)
            for mark in shot.marks
            if mark.shape == often.subject
        ]
        assert len(seen) == len(shots)
        assert often.answer == COUNTS[len(set(seen)) - 1]
        last = shots[-1]
        assert isinstance(last, Shot)
        assert now.answer in {last.zones[mark.cell] for mark in last.marks if mark.shape == now.subject}


def test_a_slide_changes_how_often_an_object_changed() -> None:
    """Otherwise the answer of the window before would do."""
    changed = 0
    for seed in range(12):
        case = EVENTS["slide_one"].case(POCKET_GROUND, "moves", seed)
        question = case.questions["track"]
        before = {q.text: q.answer for q in POCKET_GROUND.ask(case.pictures)}
        changed += before[question.text] != question.answer
    assert changed > 0


def test_scripts_by_hand() -> None:
    orders = [EVENTS["reorder_3"].script(seed, 0).after for seed in range(5)]
    assert sorted(orders) == [*permutations(range(3))][1:]
    assert EVENTS["recall_one"].script(0, 1) == Script(((0, 1, 2), (0, 2)), (0, 1, 2))
    assert [EVENTS["drop_middle"].script(seed, 0).after for seed in range(2)] == [(0, 1, 3), (0, 2, 3)]
    assert EVENTS["slide_half"].leaves(POCKET_GROUND, "joins")
    assert [*EVENTS["slide_half"].case(POCKET_GROUND, "joins", 0).questions] == ["join2"]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_in_a_window_is_that_of_the_bench(bench: Bench, lives: dict[str, Live], event: str) -> None:
    """A window that takes exact KV only, and one that has healed, have the logits of the full prefill."""
    case = EVENTS[event].case(POCKET_GROUND, "moves", 1)
    full = happen(bench, EVENTS[event], case, 1).full
    texts = [question.text for question in case.questions.values()]
    script = EVENTS[event].script_of(case, 1)
    (exact,) = lives["exact"].play(script, case.pictures, texts)
    _, settled = lives["default"].play(script, case.pictures, texts)
    for heard in (exact, settled):
        for text, logits in zip(texts, heard.logits, strict=True):
            assert divergence(full.logits(bench.ask(text)), logits) < 1e-6
    assert exact.recomputed == exact.stale
    assert (settled.recomputed, settled.stale) == (0, 0)


def test_a_slide_that_was_expected_is_exact(bench: Bench, lives: dict[str, Live]) -> None:
    """Two of four shots leave. Without healing, the others are refreshed: that is near, but not exact."""
    case = EVENTS["slide_half"].case(POCKET_GROUND, "moves", 4)
    script, text = EVENTS["slide_half"].script_of(case, 4), case.questions["track"].text
    reference = happen(bench, EVENTS["slide_half"], case, 4).full.logits(bench.ask(text))
    expected, _ = lives["default"].play(script, case.pictures, [text])
    (never,) = lives["never"].play(script, case.pictures, [text])
    assert divergence(reference, expected.logits[0]) < 1e-6
    assert 1e-6 < divergence(reference, never.logits[0]) < 1e-3
    assert (expected.stale, never.stale) == (0, 1)


def test_nothing_is_healed_between_the_questions_of_a_turn(lives: dict[str, Live]) -> None:
    """The last question of a turn is answered as if it were the only one."""
    case = EVENTS["drop_middle"].case(POCKET_GROUND, "moves", 1)
    script, texts = EVENTS["drop_middle"].script_of(case, 1), [question.text for question in case.questions.values()]
    both, _ = lives["default"].play(script, case.pictures, texts)
    one, _ = lives["default"].play(script, case.pictures, texts[-1:])
    assert divergence(one.logits[-1], both.logits[-1]) < 1e-6


def test_plays_do_not_know_each_other(lives: dict[str, Live]) -> None:
    case = EVENTS["recall_all"].case(POCKET_GROUND, "one_change", 1)
    script, texts = Script(((0, 1, 2),), (0, 1, 2), anew=True), [case.questions["diff"].text]
    (first,), (again,) = (lives["never"].play(script, case.pictures, texts) for _ in range(2))
    (unseen,) = lives["never"].play(Script((), (0, 1, 2)), case.pictures, texts)
    assert torch.equal(first.logits[0], again.logits[0])
    assert (first.recomputed, again.recomputed, unseen.recomputed) == (0, 0, 1)


def test_recomputing_every_token_is_computing_the_chunk(bench: Bench) -> None:
    case = draw_case(POCKET_GROUND, "joins", 2, range(2), seed=3)
    chunks = [bench.chunk(picture) for picture in case.pictures]
    window, again = bench.window(chunks), bench.window(chunks)
    window.compute([0, 1])
    again.compute([0])
    again.put(1, bench.engine.canonical(chunks[1]).kv)
    again.recompute({1: range(len(chunks[1].token_ids))})
    assert distance(window.read(1), again.read(1)) < 1e-4


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
    deviation = torch.zeros(3, 6)
    deviation[1, [2, 5]] = 3
    deviation[2, 4] = 9
    assert Recompute(first=4).tokens(deviation) == [0, 1, 2, 3]
    assert Recompute(share=0.34).tokens(deviation) in ([2, 4], [4, 5])
    assert Recompute(share=0.34, layers=(0, 1)).tokens(deviation) == [2, 5]


def test_a_shard_is_kept_and_read_again(tmp_path: Path) -> None:
    job = Job(str(WEIGHTS), "one_change", ("slide_half",), 3, 4, 0)
    results = kept_shard((tmp_path, job))
    (file,) = tmp_path.iterdir()
    assert kept_shard((tmp_path, job)) == results
    file.write_text(json.dumps([{**asdict(results[0]), "event": "from the file"}]))
    assert kept_shard((tmp_path, job))[0].event == "from the file"


def test_the_tables_in_the_documents_are_those_of_the_results() -> None:
    root = Path(__file__).parents[2]
    results, docs = root / "benchmarks" / "results", root / "docs"
    one = json.loads((results / "2026-11-28-cpu-fidelity.json").read_text())
    many = json.loads((results / "2026-11-28-cpu-fidelity-backbones.json").read_text())
    assert (docs / "fidelity_tables.md").read_text() == as_markdown(one["cells"]) + "\n"
    assert (docs / "fidelity_backbones.md").read_text() == backbones_as_markdown(many) + "\n"
    split = many["qwen3_5-1"]["split"]
    page = (docs / "hybrid.md").read_text()
    assert split_table("qwen3_5-1", split) in page
    assert rank_table("qwen3_5-1", split) in page


def answers(**right: bool) -> dict[str, Answer]:
    return {name: Answer(hit, hit, 0.0 if hit else 2.0, 0.1, 0.0, 1.0) for name, hit in right.items()}


def test_figures_by_hand() -> None:
    """Four cases, of which full misses one. Blind misses three, and the patch repairs two of them."""
    hits = [(True, True, True), (False, False, True), (True, False, True), (True, False, False)]
    results = [
        Result("diff", "recall_all", answers(full=full, blind=blind, canonical_12pct=patch), [0.5], [1.0])
        for full, blind, patch in hits
    ]
    row = make_cells(results)["recall_all"]
    assert row["blind"]["diff"]["accuracy"] == 0.25
    assert row["canonical_12pct"]["diff"] == {
        "cases": 4,
        "accuracy": 0.75,
        "kept": 1.0,
        "lost": 1,
        "won": 1,
        "agreement": 0.75,
        "flips": 3,
        "flips_repaired": pytest.approx(2 / 3),
        "kl": 0.5,
        "bytes_share": pytest.approx(0.1),
        "recomputed": 0.0,
        "stale": 1.0,
    }


def test_the_worst_cell_by_hand() -> None:
    """Two events with a case per task. Healed windows miss "now" in one; half of the tokens are stale in the other."""
    missed = ("reorder_3", "now")
    results = []
    for event in ("recall_all", "reorder_3"):
        for task in (*TASKS, "now"):
            names = ("full", "blind", "canonical_12pct", "canonical_25pct", "ideal_25pct", "orbit")
            by_method = answers(**dict.fromkeys(names, True), default=(event, task) != missed, settled=True)
            by_method["default"] = by_method["default"]._replace(
                recomputed=0.2, stale=1.0 if event == missed[0] else 0.5
            )
            results.append(Result(task, event, by_method, [0.5], [1.0]))
    summary = summarise(make_cells(results))
    assert summary["default"] == {
        "worst_kept": 0,
        "worst_cell": "reorder_3, now",
        "recomputed_share": pytest.approx(0.4 / 1.5),
    }
    assert summary["settled"]["worst_kept"] == 1
    assert summary["patch_12pct"]["worst_kept"] == 1


def test_the_summary_by_hand() -> None:
    """Blind misses every second case of all tasks but read and find. Orbit misses one diff of four."""
    results = []
    for task in TASKS:
        for number in range(4):
            blind = task in ("read", "find") or number % 2 == 0
            orbit = (task, number) != ("diff", 0)
            by_method = answers(
                full=True, blind=blind, canonical_12pct=number > 0, canonical_25pct=True, ideal_25pct=True, orbit=orbit
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
                canonical_12pct=True,
                canonical_25pct=True,
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
