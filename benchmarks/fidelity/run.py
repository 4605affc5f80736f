"""Answers of every method in a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

import torch

from benchmarks.fidelity.bench import Bench, Window
from benchmarks.fidelity.cases import Asked
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.live import Heard, Live
from benchmarks.fidelity.methods import MAIN, Auto, Method, Moved, Patch, Recompute, Refresh
from benchmarks.fidelity.residue import Residue, decompose, energy_ranks, flatten, share_basis
from benchmarks.fidelity.situation import Situation, happen
from benchmarks.fidelity.split import Split, Stateless, Unfolded, unfolded
from benchmarks.fidelity.state import KV, attending_in, with_tokens
from kamera_agent.telemetry.drift import divergence

# Squared, relative to the KV: a chunk that deviates less is fresh.
ROUNDING = 1e-8


class Answer(NamedTuple):
    """One answer. agrees: whether it is that of the full prefill.

    kl: divergence of the next-token distribution from that of the full prefill, in nats. bytes_share: patch bytes
    over KV bytes. recomputed: share of the tokens of reused chunks that are computed again. stale: share of them in
    chunks whose KV deviates from that of the full prefill before anything is computed again.
    """

    right: bool
    agrees: bool
    kl: float
    bytes_share: float
    recomputed: float
    stale: float


@dataclass(frozen=True, slots=True)
class Result:
    """A question of a case, with its answers by method. "full" is one of them.

    norms: norm of the lost conditioning relative to the KV, by layer. energy_ranks: components that hold 90 % of its
    energy, by layer.
    """

    task: Asked
    event: str
    answers: dict[str, Answer]
    norms: list[float]
    energy_ranks: list[float]


def read_result(fields: Mapping[str, Any]) -> Result:
    """A result from its fields in JSON."""
    return Result(**{**fields, "answers": {name: Answer(*answer) for name, answer in fields["answers"].items()}})


class Subject(NamedTuple):
    """A model on its bench, and the methods to measure, by name.

    weights [L, W]: weights of the columns, for weighted patches. None if no method is weighted. live: Kameras
    that play events, by the names of what they give.
    """

    bench: Bench
    methods: Mapping[str, Method]
    weights: torch.Tensor | None
    live: Mapping[tuple[str, ...], Live]


def run_case(subject: Subject, scene: str, event: str, seed: int, *, studied: bool = True) -> list[Result]:
    """The questions of one case, answered with every method; unless it is studied, with the main ones."""
    bench, happening = subject.bench, EVENTS[event]
    case = happening.case(bench.ground, scene, seed)
    situation = happen(bench, happening, case, seed, orders=studied)
    canonical = {index: bench.canonical(situation.full.chunks[index]) for index in situation.reused}
    ideal = {index: decompose(situation.full.read(index), kv) for index, kv in canonical.items()}
    methods = {name: method for name, method in subject.methods.items() if studied or name in MAIN}
    variants = _variants(bench, methods, subject.weights, situation, canonical)
    script, texts = happening.script_of(case, seed), [question.text for question in case.questions.values()]
    heard: dict[str, Heard] = {}
    for names, live in subject.live.items():
        heard |= zip(names, live.play(script, case.pictures, texts), strict=True)
    norms = torch.stack([residue.norms for residue in ideal.values()]).mean(0).tolist()
    ranks = torch.stack([energy_ranks(residue) for residue in ideal.values()]).mean(0).tolist()
    windows = situation.full.variants([variant.kv for variant in variants.values()])
    results = []
    for number, (task, question) in enumerate(case.questions.items()):
        expected = bench.engine.family.tokens.encode(question.answer)[0]
        logits = windows.logits(bench.ask(question.text))[:, 0]
        answers = {
            name: _judge(row, logits[0], expected, variant.bytes_share, variant.recomputed, variant.stale)
            for (name, variant), row in zip(variants.items(), logits, strict=True)
        }
        for name, (rows, recomputed, stale) in heard.items():
            answers[name] = _judge(rows[number], logits[0], expected, 0.0, recomputed, stale)
        results.append(Result(task, event, answers, norms, ranks))
    return results


class Variant(NamedTuple):
    """KV of the reused chunks by index; the others as in Answer."""

    kv: dict[int, KV]
    bytes_share: float
    recomputed: float
    stale: float


def _variants(
    bench: Bench,
    methods: Mapping[str, Method],
    weights: torch.Tensor | None,
    situation: Situation,
    canonical: Mapping[int, KV],
) -> dict[str, Variant]:
    """What each method gives in a situation, and the full prefill."""
    full, reused, lacking, held, fitted, other, before = situation
    recurrence = bench.engine.family.decoder.recurrence
    fresh = {index: full.read(index) for index in reused}
    bases = {
        "even": lambda index: decompose(fitted[index], canonical[index]),
        "weighted": lambda index: decompose(fitted[index], canonical[index], weights),
        "shared": lambda index: share_basis(fitted[index], other[index], canonical[index]),
    }
    used = {method.basis for method in methods.values() if isinstance(method, Patch)}
    residues = {basis: {index: bases[basis](index) for index in reused} for basis in used}
    seen = {"fitted": fitted, "other": other, "ideal": fresh}
    over = {"canonical": canonical, "held": held}
    deviations = {name: {index: _deviation(fresh[index], kv[index]) for index in reused} for name, kv in over.items()}
    variants = {"full": Variant({}, 0.0, 1.0, 0.0)}
    for name, method in methods.items():
        if isinstance(method, Recompute):
            tokens = {at: method.tokens(of) for at, of in deviations[method.base].items() if of.any()}
            variants[name] = _recomputed(bench, full, over[method.base], deviations[method.base], tokens)
        elif isinstance(method, Moved):
            variants[name] = Variant(held, 0.0, 0.0, _stale_share(deviations["held"]))
        elif isinstance(method, Refresh):
            variants[name] = _refreshed(bench, full, held, deviations["held"], lacking)
        elif isinstance(method, Patch):
            variants[name] = _patched(method, residues[method.basis])
        elif isinstance(method, Stateless):
            variants[name] = Variant({index: attending_in(kv) for index, kv in fresh.items()}, 0.0, 0.0, 1.0)
        elif isinstance(method, Unfolded):
            variants[name] = Variant(unfolded(held, before, recurrence), 0.0, 0.0, 1.0)
        elif isinstance(method, Split):
            if method.seen == "ideal" or method.base == "canonical" or situation.has_base:
                base, target = over[method.base], seen[method.seen]
                kv = {index: method.apply(target[index], base[index], recurrence) for index in reused}
                variants[name] = Variant(kv, 0.0, 0.0, 1.0)
        elif method.base == "canonical" or situation.has_base:
            variants[name] = _shipped(method, seen[method.seen], over[method.base])
    return variants


def _deviation(fresh: KV, kv: KV) -> torch.Tensor:
    """Squared deviation [L, T] from fresh KV in the L layers with K and V, zero within rounding."""
    target = flatten(attending_in(fresh))
    squares = (target - flatten(attending_in(kv))).square().sum(2)
    return squares * (squares.sum() > ROUNDING * target.square().sum())


def _stale_share(deviations: Mapping[int, torch.Tensor]) -> float:
    stale = sum(deviation.shape[1] for deviation in deviations.values() if deviation.any())
    return stale / sum(deviation.shape[1] for deviation in deviations.values())


def _patched(method: Patch, residues: Mapping[int, Residue]) -> Variant:
    kv, shares = {}, []
    for index, residue in residues.items():
        ranks = method.ranks(residue)
        kv[index] = method.apply(residue, ranks)
        costs = [rank * method.cost(residue, width) for rank, width in zip(ranks, residue.widths, strict=True)]
        shares.append(sum(costs) / (residue.num_tokens * sum(residue.widths)))
    return Variant(kv, mean(shares), 0.0, 1.0)


def _shipped(method: Auto, seen: Mapping[int, KV], base: Mapping[int, KV]) -> Variant:
    patches = {index: method.fit(kv, base[index]) for index, kv in seen.items()}
    kv = {index: method.apply(patch, base[index], seen[index]) for index, patch in patches.items()}
    return Variant(kv, mean(method.bytes_share(patches[index], base[index]) for index in seen), 0.0, 1.0)


def _recomputed(
    bench: Bench,
    full: Window,
    base: Mapping[int, KV],
    deviations: Mapping[int, torch.Tensor],
    tokens: dict[int, Sequence[int]],
) -> Variant:
    """Base KV with some tokens of all stale chunks computed again in one pass, over everything before them.

    No pass computes single tokens through recurrent layers: there, they get the K and V of the full prefill.
    """
    if bench.engine.family.decoder.recurrence:
        kv = {index: with_tokens(old, full.read(index), tokens.get(index, ())) for index, old in base.items()}
    else:
        window = _with_base(bench, full, base)
        window.recompute(tokens)
        kv = {index: window.read(index) for index in base}
    num_tokens = sum(deviation.shape[1] for deviation in deviations.values())
    recomputed = sum(map(len, tokens.values())) / num_tokens
    return Variant(kv, 0.0, recomputed, _stale_share(deviations))


def _refreshed(
    bench: Bench, full: Window, held: Mapping[int, KV], deviations: Mapping[int, torch.Tensor], lacking: Sequence[int]
) -> Variant:
    window = _with_base(bench, full, held)
    stale = [index for index, deviation in deviations.items() if deviation.any()]
    share = window.refresh(stale, lacking) if stale else 0.0
    stale_share = _stale_share(deviations)
    return Variant({index: window.read(index) for index in held}, 0.0, share * stale_share, stale_share)


def _with_base(bench: Bench, full: Window, base: Mapping[int, KV]) -> Window:
    """A window with the base KV of the chunks that have one, and the KV of the full prefill for the others."""
    window = bench.window(full.chunks)
    for index in range(len(full.chunks)):
        window.put(index, base[index] if index in base else full.read(index))
    return window


def _judge(
    logits: torch.Tensor, full: torch.Tensor, expected: int, bytes_share: float, recomputed: float, stale: float
) -> Answer:
    choice = int(logits.argmax())
    agrees, kl = choice == int(full.argmax()), divergence(full, logits)
    return Answer(choice == expected, agrees, kl, bytes_share, recomputed, stale)
