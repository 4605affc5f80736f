"""Methods of the fidelity benchmark for models with recurrent layers, on a small model with random weights."""

import pytest
import torch

from benchmarks.fidelity.backbones.ground import GROUND, StemBench
from benchmarks.fidelity.backbones.models import build
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.cases import draw_case
from benchmarks.fidelity.methods import Method, Patch
from benchmarks.fidelity.run import Subject, run_case
from benchmarks.fidelity.split import RANKS, Split, Stateless, Unfolded
from benchmarks.fidelity.split_report import LABELS, RANKED, rank_table, split_table
from benchmarks.fidelity.state import attending_in, recurrent_in, with_tokens
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for


@pytest.fixture(scope="module")
def hybrid() -> Bench:
    return StemBench(Engine(family_for(*build("qwen3_5", seed=3)), 1 << 26), GROUND)


def split(bench: Bench, event: str, methods: dict[str, Method]) -> dict[str, float]:
    """Divergence of methods in a case."""
    (result,) = run_case(Subject(bench, {"blind": Patch(rank=0), **methods}, None, {}), "one_change", event, seed=0)
    return {name: answer.kl for name, answer in result.answers.items()}


def test_the_whole_residue_is_the_full_prefill(hybrid: Bench) -> None:
    """All of the residue of a chunk of 18 tokens, whose maps have 32 rows."""
    whole: dict[str, Method] = {
        "both": Split(None, None),
        "inputs": Split(None, 18),
        "maps": Split(None, 32, maps=True),
        "held": Split(18, 18, "held"),
    }
    kl = split(hybrid, "second_context", whole | {"recurrent": Split(0, None), "edges": Split(None, None, edges=False)})
    assert max(kl[name] for name in whole) < 1e-6
    assert min(kl[name] for name in ("blind", "recurrent", "edges")) > 1e-4


def test_a_state_that_goes_on_is_that_of_the_window_before(hybrid: Bench) -> None:
    """It is the right one where the window before had the same chunks, and has seen one too many after a slide."""
    going_on: dict[str, Method] = {"unfolded": Unfolded(), "stateless": Stateless()}
    assert split(hybrid, "recall_all", going_on)["unfolded"] < 1e-6
    assert split(hybrid, "recall_all", going_on)["stateless"] > 1e-3
    assert split(hybrid, "slide_one", going_on)["unfolded"] > 1e-4


def test_tokens_of_another_kv(hybrid: Bench) -> None:
    before, chunk = (hybrid.chunk(picture) for picture in draw_case(GROUND, "joins", 2, range(2), seed=1).pictures)
    alone, other = hybrid.canonical(chunk), hybrid.prefilled((before, chunk)).read(1)
    mixed = with_tokens(alone, other, [3, 5])
    for ours, old, new in zip(*map(attending_in, (mixed, alone, other)), strict=True):
        for mine, before, after in zip(*(layer[:2] for layer in (ours, old, new)), strict=True):
            assert [torch.equal(mine[:, token], after[:, token]) for token in (3, 5)] == [True, True]
            assert torch.equal(mine[:, [0, 4, 17]], before[:, [0, 4, 17]])
    assert recurrent_in(mixed) == recurrent_in(alone)


def test_the_tables_by_hand() -> None:
    """Two binding tasks and one that reads: what is kept is a mean over the two, KL over the three."""

    def row(kept: float, kl: float) -> dict[str, dict[str, float]]:
        return {"read": {"kept": 1.0, "kl": 0.0}, "diff": {"kept": kept, "kl": kl}, "join2": {"kept": 1.0, "kl": kl}}

    methods = [*LABELS, *(f"{kind}_{rank}" for kind in RANKED for rank in RANKS)]
    cells = {event: {method: row(0.5, 0.3) for method in methods} for event in ("recall_all", "second_context")}
    cells["recall_all"]["maps_4"] = cells["second_context"]["base_attention_4"] = row(0.9, 0.03)
    cells["second_context"]["moved"] = row(0.1, 3.0)
    split, ranks = split_table("small", cells).splitlines(), rank_table("small", cells).splitlines()
    assert split[0] == "| small: kept, KL | recall_all | second_context |"
    assert split[2] == "| full prefill | 0.75, 0.2000 | 0.75, 0.2000 |"
    assert "| as computed before, folded in the new order | 0.75, 0.2000 | 0.55, 2.0000 |" in split
    assert ranks[0] == "| small: kept, KL | rank 1 | rank 2 | rank 4 | rank 8 |"
    same = "0.75, 0.2000"
    assert f"| over canonical, K and V and maps | {same} | {same} | 0.95, 0.0200 | {same} |" in ranks
    assert f"| over the base, K and V | {same} | {same} | 0.95, 0.0200 | {same} |" in ranks
    assert (len(split), len(ranks)) == (2 + len(LABELS), 2 + len(RANKED))
