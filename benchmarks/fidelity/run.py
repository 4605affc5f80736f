"""Answers of every method in a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import torch

from benchmarks.fidelity.bench import KV, Bench, Window
from benchmarks.fidelity.cases import Asked
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.methods import Auto, Method, Patch, Recompute
from benchmarks.fidelity.residue import Residue, decompose, energy_ranks, share_basis
from kamera_agent.telemetry.drift import divergence


class Answer(NamedTuple):
    """One answer. agrees: whether it is that of the full prefill.

    kl: divergence of the next-token distribution from that of the full prefill, in nats. bytes_share: patch bytes
    over KV bytes. recomputed: share of the tokens of reused chunks that are computed again.
    """

    right: bool
    agrees: bool
    kl: float
    bytes_share: float
    recomputed: float


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


class Subject(NamedTuple):
    """A model on its bench, and the methods to measure, by name.

    weights [L, W]: weights of the columns, for weighted patches. None if no method is weighted.
    """

    bench: Bench
    methods: Mapping[str, Method]
    weights: torch.Tensor | None


def run_case(subject: Subject, scene: str, event: str, seed: int) -> list[Result]:
    """The questions of one case, answered with every method."""
    bench, methods, weights = subject
    case = EVENTS[event].case(bench.ground, scene, seed)
    places, full, reused, conditioned, other = EVENTS[event].happen(bench, case, seed)
    canonical = {index: bench.engine.canonical(full.chunks[index]) for index in reused}
    ideal = {index: decompose(full.read(index), canonical[index]) for index in reused}
    bases = {
        "even": lambda index: decompose(conditioned[index], canonical[index]),
        "weighted": lambda index: decompose(conditioned[index], canonical[index], weights),
        "shared": lambda index: share_basis(conditioned[index], other[index], canonical[index]),
    }
    used = {method.basis for method in methods.values() if isinstance(method, Patch)}
    residues = {basis: {index: bases[basis](index) for index in reused} for basis in used}
    seen = {"fitted": conditioned, "other": other, "ideal": {index: full.read(index) for index in reused}}
    variants = {"full": Variant({}, 0.0, 1.0)}
    for name, method in methods.items():
        if isinstance(method, Recompute):
            variants[name] = _recomputed(bench, full, method, ideal)
        elif isinstance(method, Auto):
            variants[name] = _shipped(method, seen[method.seen], canonical)
        else:
            variants[name] = _patched(method, residues[method.basis])
    # The answer can depend on the order: "now" is the last shot of the window.
    asked = {question.text: question.answer for question in bench.ground.ask([case.window[place] for place in places])}
    norms = torch.stack([residue.norms for residue in ideal.values()]).mean(0).tolist()
    ranks = torch.stack([energy_ranks(residue) for residue in ideal.values()]).mean(0).tolist()
    results = []
    for task, question in case.questions.items():
        expected = bench.engine.family.tokens.encode(asked[question.text])[0]
        logits = full.logits(bench.ask(question.text), [variant.kv for variant in variants.values()])
        answers = {
            name: _judge(row, logits[0], expected, variant)
            for (name, variant), row in zip(variants.items(), logits, strict=True)
        }
        results.append(Result(task, event, answers, norms, ranks))
    return results


class Variant(NamedTuple):
    """KV of the reused chunks by index; bytes_share and recomputed as in Answer."""

    kv: dict[int, KV]
    bytes_share: float
    recomputed: float


def _patched(method: Patch, residues: Mapping[int, Residue]) -> Variant:
    kv, shares = {}, []
    for index, residue in residues.items():
        ranks = method.ranks(residue)
        kv[index] = method.apply(residue, ranks)
        shares.append(sum(ranks) * method.cost(residue) / (len(ranks) * residue.num_tokens * residue.width))
    return Variant(kv, mean(shares), 0.0)


def _shipped(method: Auto, seen: Mapping[int, KV], canonical: Mapping[int, KV]) -> Variant:
    patches = {index: method.fit(kv, canonical[index]) for index, kv in seen.items()}
    kv = {index: method.apply(patch, canonical[index]) for index, patch in patches.items()}
    return Variant(kv, mean(method.bytes_share(patches[index], canonical[index]) for index in seen), 0.0)


def _recomputed(bench: Bench, full: Window, method: Recompute, ideal: Mapping[int, Residue]) -> Variant:
    """Canonical KV with some tokens of all reused chunks computed again in one pass, over everything before them."""
    window = bench.window(full.chunks)
    for index in range(len(full.chunks)):
        window.put(index, ideal[index].canonical if index in ideal else full.read(index))
    tokens = {index: method.tokens(residue) for index, residue in ideal.items()}
    window.recompute(tokens)
    num_tokens = sum(residue.num_tokens for residue in ideal.values())
    return Variant({index: window.read(index) for index in ideal}, 0.0, sum(map(len, tokens.values())) / num_tokens)


def _judge(logits: torch.Tensor, full: torch.Tensor, expected: int, variant: Variant) -> Answer:
    choice = int(logits.argmax())
    agrees, kl = choice == int(full.argmax()), divergence(full, logits)
    return Answer(choice == expected, agrees, kl, variant.bytes_share, variant.recomputed)
