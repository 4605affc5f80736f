"""`kamera doctor`: the diagnosis of a model."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.table import Table

from kamera_agent import Kamera
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.cli.diagnosis import Diagnosis, Layers, diagnose
from kamera_agent.runtime.families.decoder import ATTENDING
from kamera_agent.runtime.short_convolution import ShortConvolution


def show_diagnosis(model: str, as_json: bool) -> None:
    """Load a model without a store and print its diagnosis. Raises the errors of Kamera.from_pretrained."""
    with Kamera.from_pretrained(model, store=None) as kamera:
        diagnosis = diagnose(kamera)
    if as_json:
        typer.echo(json.dumps(asdict(diagnosis), indent=2))
        return
    table = Table(show_header=False)
    for name, value in _rows(diagnosis):
        table.add_row(name, value)
    make_console().print(table)


def _rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    trip, token_bytes, expanded_bytes = diagnosis.round_trip, diagnosis.token_bytes, diagnosis.expanded_bytes
    latent = f" (expanded {format_bytes(expanded_bytes)})" if expanded_bytes != token_bytes else ""
    screen = f"{diagnosis.screen_tokens} tokens, {format_bytes(diagnosis.screen_bytes)}"
    return [
        ("model", f"{diagnosis.model}, {diagnosis.dtype}"),
        ("weights", diagnosis.weights or "not quantised"),
        ("family", diagnosis.family),
        *[(_numbers(layers), _layer_facts(diagnosis, layers)) for layers in diagnosis.layers],
        ("window", f"{diagnosis.max_positions} positions"),
        ("KV of a token", format_bytes(token_bytes) + latent),
        ("chunk of 1,000 tokens", format_bytes(diagnosis.thousand_bytes)),
        ("screenshot 1280x720", screen if diagnosis.screen_tokens else "not seen"),
        ("computed window", f"largest error of logits {trip.computed_error:.1e} against a full prefill"),
        ("recalled window", f"largest error of logits {trip.recalled_error:.1e}, KL {trip.recalled_kl:.1e}"),
    ]


def _numbers(layers: Layers) -> str:
    return f"layer {layers.first}" if layers.first == layers.last else f"layers {layers.first} to {layers.last}"


def _layer_facts(diagnosis: Diagnosis, layers: Layers) -> str:
    if layers.kind not in ATTENDING:
        kept = "its last columns" if layers.kind in ShortConvolution.kinds else "a state"
        return f"{layers.kind}, {kept} and no keys"
    error = layers.rope_error
    keys = "KV of an earlier layer" if error is None else f"RoPE {layers.rope}, off by {error:.1e}"
    return f"{diagnosis.attention}, {layers.kind}, {keys}"
