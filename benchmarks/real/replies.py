"""Replies over the KV that every way gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.fidelity.bench import Window
from benchmarks.fidelity.state import KV
from benchmarks.real.documents import Question
from benchmarks.real.transcript import Transcript, write
from kamera_agent.runtime.families.base import Family

# Variants of one window in a forward pass.
BATCH = 8


def reply(
    family: Family, full: Window, variants: Mapping[str, Mapping[int, KV]], questions: Sequence[Question]
) -> dict[str, Any]:
    """JSON of the replies with every variant of the KV of a fully computed window. The first one is the window's own.

    two_documents: per question. replies: by variant, per question whether the reply is right, and before each token of
    the replies the divergence from the full prefill in nats.
    """
    transcript = write(family, questions)
    judged: dict[str, Any] = {}
    reference = None
    for start in range(0, len(variants), BATCH):
        names = [*variants][start : start + BATCH]
        logits = full.variants([variants[name] for name in names]).logits(transcript.run, transcript.places)
        reference = logits[0] if reference is None else reference
        judged |= {name: _judge(row, reference, transcript) for name, row in zip(names, logits, strict=True)}
    return {"two_documents": [len(question.needs) > 1 for question in questions], "replies": judged}


def _judge(logits: torch.Tensor, full: torch.Tensor, transcript: Transcript) -> dict[str, list[Any]]:
    """logits, full: [places, vocab]."""
    theirs, ours = full.double().log_softmax(-1), logits.double().log_softmax(-1)
    right = [
        all(going_on[int(logits[place, going_on].argmax())] == token for place, token, going_on in tokens)
        for tokens in transcript.judged
    ]
    return {"right": right, "kl": (theirs.exp() * (theirs - ours)).sum(-1).clamp_min(0).tolist()}
