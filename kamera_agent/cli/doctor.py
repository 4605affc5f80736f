"""`kamera doctor`: what a model can do here."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.table import Table

from kamera_agent import Kamera
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.cli.diagnosis import Diagnosis, Layers, diagnose


def show_diagnosis(model: str, as_json: bool) -> None:
    """Load a model without a store and print its diagnosis. Raises what Kamera.from_pretrained raises."""
    with Kamera.from_pretrained(model, store=None) as kamera:
        diagnosis = diagnose(kamera)
    if as_json:
        typer.echo(json.dumps(asdict(diagnosis), indent=2))
        return
    table = Table(show_header=False)
    for name, value in _rows(diagnosis):
        table.add_row(name, value)
    make_console().print(table)


def _rows(found: Diagnosis) -> list[tuple[str, str]]:
    trip = found.round_trip
    latent = f" (expanded {format_bytes(found.expanded_bytes)})" if found.expanded_bytes != found.token_bytes else ""
    screen = f"{found.screen_tokens} tokens, {format_bytes(found.screen_bytes)}" if found.screen_tokens else "not seen"
    return [
        ("model", f"{found.model}, {found.dtype}"),
        ("family", found.family),
        *[(_numbers(layers), _layer_facts(found, layers)) for layers in found.layers],
        ("window", f"{found.max_positions} positions"),
        ("KV of a token", format_bytes(found.token_bytes) + latent),
        ("screenshot 1280x720", screen),
        ("computed window", f"largest error of logits {trip.computed_error:.1e} against a full prefill"),
        ("recalled window", f"largest error of logits {trip.recalled_error:.1e}, KL {trip.recalled_kl:.1e}"),
    ]


def _numbers(layers: Layers) -> str:
    return f"layer {layers.first}" if layers.first == layers.last else f"layers {layers.first} to {layers.last}"


def _layer_facts(found: Diagnosis, layers: Layers) -> str:
    return f"{found.attention}, {layers.kind}, RoPE {layers.rope}, off by {layers.rope_error:.1e}"
