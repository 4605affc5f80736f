"""Answers of every method in every case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks.fidelity.bench import KV, Bench
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.methods import METHODS, Patch, Recompute, Residue, decompose, patched
from kamera_agent.chunk import Chunk
from kamera_agent.pocket.tasks import Task, ask


class Answer(NamedTuple):
    """One answer. kl: of the next-token distribution to that of the full prefill, in nats.

    bytes_share: patch bytes over KV bytes. recomputed: tokens computed again over tokens of the reused chunks.
    """

    right: bool
    agrees: bool
    kl: float
    bytes_share: float
    recomputed: float


@dataclass(frozen=True, slots=True)
class Result:
    """A case: the answers by method, "full" among them; norms: per layer, of the lost conditioning."""

    task: Task
    event: str
    answers: dict[str, Answer]
    norms: list[float]


def run_case(bench: Bench, task: Task, event: str, seed: int, weights: torch.Tensor) -> Result:
    """One case, answered in every way. weights [L, W]: of the columns, for the weighted patches."""
    case = EVENTS[event].case(task, seed)
    chunks = [bench.chunk(picture) for picture in case.window]
    situation = EVENTS[event].happen(bench, case, chunks, seed)
    question = bench.ask(case.question.text)
    # Another order may have another answer: "now" is the last shot of the window.
    asked = ask([case.window[place] for place in situation.places])
    answer = next(other.answer for other in asked if other.text == case.question.text)
    expected = bench.engine.family.tokenize(answer)[0]
    window = bench.window(situation.shown)
    window.compute(range(len(situation.shown)))
    exact = {index: window.read(index) for index in range(len(situation.shown))}
    canonical = {index: bench.engine.canonical(situation.shown[index]) for index in situation.reused}
    fitted = _decompose(situation.conditioned, canonical)
    other = fitted if situation.other is situation.conditioned else _decompose(situation.other, canonical)
    ideal = fitted if EVENTS[event].exact else _decompose({i: exact[i] for i in situation.reused}, canonical)
    weighted = {i: decompose(kv, canonical[i], weights) for i, kv in situation.conditioned.items()}
    variants: dict[str, Variant] = {"full": Variant({}, 0.0, 1.0)}
    for name, method in METHODS.items():
        if isinstance(method, Recompute):
            variants[name] = _recomputed(bench, situation.shown, method, ideal, exact)
        else:
            variants[name] = _patched(method, other if method.other else weighted if method.weighted else fitted)
    if EVENTS[event].reorders:
        variants["exact_25pct"] = _patched(Patch(share=0.25), ideal)
    logits = window.logits(question, [variant.kv for variant in variants.values()])
    answers = {
        name: _judge(row, logits[0], expected, variant)
        for (name, variant), row in zip(variants.items(), logits, strict=True)
    }
    norms = torch.stack([residue.norms for residue in ideal.values()]).mean(0)
    return Result(task, event, answers, norms.tolist())


class Variant(NamedTuple):
    """KV of the reused chunks by index, patch bytes over KV bytes, and the share of tokens computed again."""

    kv: dict[int, KV]
    bytes_share: float
    recomputed: float


def _decompose(conditioned: dict[int, KV], canonical: dict[int, KV]) -> dict[int, Residue]:
    return {index: decompose(kv, canonical[index]) for index, kv in conditioned.items()}


def _patched(method: Patch, residues: dict[int, Residue]) -> Variant:
    kv, shares = {}, []
    for index, residue in residues.items():
        ranks = method.ranks(residue)
        kv[index] = patched(residue, ranks)
        size, width = residue.left.shape[1], residue.basis.shape[2]
        shares.append(sum(ranks) * (size + width) / (len(ranks) * size * width))
    return Variant(kv, sum(shares) / len(shares), 0.0)


def _recomputed(
    bench: Bench, shown: Sequence[Chunk], method: Recompute, ideal: dict[int, Residue], exact: dict[int, KV]
) -> Variant:
    """Canonical KV with some tokens of all reused chunks computed again, in one pass over what stands before them."""
    window = bench.window(shown)
    for index, kv in exact.items():
        window.put(index, ideal[index].canonical if index in ideal else kv)
    tokens = {index: method.tokens(residue) for index, residue in ideal.items()}
    window.recompute(tokens)
    num_tokens = sum(residue.left.shape[1] for residue in ideal.values())
    return Variant({index: window.read(index) for index in ideal}, 0.0, sum(map(len, tokens.values())) / num_tokens)


def _judge(logits: torch.Tensor, full: torch.Tensor, expected: int, variant: Variant) -> Answer:
    p, q = full.double().log_softmax(-1), logits.double().log_softmax(-1)
    choice = int(logits.argmax())
    kl = float((p.exp() * (p - q)).sum().clamp_min(0))
    return Answer(choice == expected, choice == int(full.argmax()), kl, variant.bytes_share, variant.recomputed)
