"""The diagnosis of a loaded model: its layout, the size of its KV, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from kamera_agent.kamera import Kamera
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.quantisation import scheme_of
from kamera_agent.telemetry.drift import divergence
from kamera_agent.window.window import Window

# Height and width of a screenshot as agents take them, and of the smaller images that are computed.
SCREEN = (720, 1280)
SMALL = (252, 336)
CELL = 28
DOCUMENTS = ("The shop opens at nine and closes at six.", "On Sundays it stays closed, and the phone is off.")
QUESTION = "What is different?"


@dataclass(frozen=True, slots=True)
class Layers:
    """Consecutive layers of one kind. first, last: their numbers.

    rope_error: the largest of the self-test; None for layers that keep no keys.
    """

    first: int
    last: int
    kind: str
    rope: str
    rope_error: float | None


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The errors of a window of two chunks and a question, against one plain Hugging Face forward pass.

    computed_error, recalled_error: largest difference of a logit, with every chunk computed and with every chunk
        recalled. recalled_kl: KL divergence in nats with every chunk recalled.
    """

    computed_error: float
    recalled_error: float
    recalled_kl: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The family that serves a model, the size of its KV, and its errors.

    weights: how they are quantised; None where they are not.
    token_bytes: KV of a token. expanded_bytes: the same with K and V of every head, which latent attention does not
        keep; otherwise equal to token_bytes. thousand_bytes: what all layers keep of a chunk of 1,000 tokens.
    screen_tokens, screen_bytes: of a screenshot of 1280x720; 0 for a text model.
    """

    model: str
    family: str
    attention: str
    layers: tuple[Layers, ...]
    dtype: str
    weights: str | None
    max_positions: int
    token_bytes: int
    expanded_bytes: int
    thousand_bytes: int
    screen_tokens: int
    screen_bytes: int
    round_trip: RoundTrip


def diagnose(kamera: Kamera) -> Diagnosis:
    """Examine the model of a Kamera with an empty store. Runs a few forward passes over two small chunks.

    Raises the errors of Window.add_image, add_document and logits.
    """
    family = kamera.family
    screen_tokens = 0
    if family.has_eyes:
        screen_tokens = len(family.image_chunk(_noise(0, *SCREEN), kamera.settings.namespace).token_ids)
    return Diagnosis(
        model=type(family.model).__name__,
        family=type(family).__name__,
        attention=family.decoder.attention,
        layers=_layers(kamera),
        dtype=str(family.decoder.dtype).removeprefix("torch."),
        weights=scheme_of(family.model),
        max_positions=family.decoder.max_positions,
        token_bytes=family.decoder.token_bytes,
        expanded_bytes=family.decoder.expanded_bytes,
        screen_tokens=screen_tokens,
        thousand_bytes=family.decoder.chunk_bytes(1000),
        screen_bytes=family.decoder.chunk_bytes(screen_tokens) if screen_tokens else 0,
        round_trip=round_trip(kamera),
    )


def round_trip(kamera: Kamera) -> RoundTrip:
    """Compute two chunks, recall them in a second window, and compare both with a plain forward pass."""
    window = _fill(kamera.window(), kamera.family)
    reference = window.reference_logits(QUESTION)
    computed = window.logits(QUESTION)
    kamera.flush()
    recalled = _fill(kamera.window(), kamera.family).logits(QUESTION)
    return RoundTrip(_largest(reference, computed), _largest(reference, recalled), divergence(reference, recalled))


def _layers(kamera: Kamera) -> tuple[Layers, ...]:
    decoder = kamera.family.decoder
    errors = dict(zip(decoder.key_modules, kamera.rope_errors, strict=True))
    groups = groupby(enumerate(decoder.kinds), key=lambda layer: (layer[1], layer[0] in errors))
    found = []
    for (kind, keeps), group in groups:
        numbers = [number for number, _ in group]
        worst = max(errors[number] for number in numbers) if keeps else None
        found.append(Layers(numbers[0], numbers[-1], kind, decoder.pairs, worst))
    return tuple(found)


def _fill(window: Window, family: Family) -> Window:
    for seed, document in enumerate(DOCUMENTS):
        if family.has_eyes:
            window.add_image(_noise(seed, *SMALL))
        else:
            window.add_document(document)
    return window


def _noise(seed: int, height: int, width: int) -> np.ndarray:
    """A picture of coloured cells, [height, width, 3] uint8. Each seed gives another one."""
    cells = np.random.default_rng(seed).integers(0, 256, (-(-height // CELL), -(-width // CELL), 3), dtype=np.uint8)
    return np.ascontiguousarray(cells.repeat(CELL, axis=0).repeat(CELL, axis=1)[:height, :width])


def _largest(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).abs().max())
