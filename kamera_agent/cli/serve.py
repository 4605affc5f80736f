"""`kamera serve`: a model over HTTP. Torch is imported once there is an address for it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import typer

from kamera_agent.errors import SettingError
from kamera_agent.serve.address import is_loopback
from kamera_agent.serve.keys import Keys
from kamera_agent.serve.server import listen, serve
from kamera_agent.turns.policy import Budget, Interval, KeepLast, Policy


class Door(NamedTuple):
    """Where clients come in. key_file: with their keys; None lets in who is on this machine."""

    host: str
    port: int
    key_file: Path | None


class Shown(NamedTuple):
    """Which screenshots of a client are shown: the last ones, so many leaving at once, or those within tokens."""

    keep_last: int | None
    drop: int | None
    image_tokens: int | None


def serve_model(
    model: str, door: Door, shown: Shown, timeout_s: float, store: list[str], key: str | None, namespace: str
) -> None:
    """Serve until a signal ends it. Raises KameraError before that.

    timeout_s: that an answer may take. key: of an encrypted store. namespace: of clients without a key.
    """
    keys = Keys.read(door.key_file) if door.key_file else None
    if keys is None and not is_loopback(door.host):
        raise SettingError(f"Others can reach {door.host}; give --api-key-file, or listen on 127.0.0.1.")
    policy = make_policy(shown)
    with listen(door.host, door.port) as listening:
        from kamera_agent.kamera import Kamera
        from kamera_agent.serve.app import Bounds, make_app
        from kamera_agent.telemetry.metrics import Metrics

        with Kamera.from_pretrained(model, store=store, encryption_key=key, namespace=namespace) as kamera:
            address = f"[{door.host}]" if ":" in door.host else door.host
            typer.echo(f"{model} is served at http://{address}:{listening.getsockname()[1]}/v1")
            metrics = Metrics() if find_spec("prometheus_client") else None
            serve(make_app(kamera, keys, metrics, Bounds(answer_s=timeout_s), policy), listening)


def make_policy(shown: Shown) -> Policy | None:
    """The policy of these options; None shows all. Raises SettingError for options that do not go together."""
    keep_last, drop, image_tokens = shown
    if image_tokens is not None and keep_last is None and drop is None:
        return Budget(image_tokens)
    if image_tokens is not None or (drop is not None and keep_last is None):
        raise SettingError("Give --keep-last, --keep-last with --drop, or --image-tokens.")
    if keep_last is None:
        return None
    return KeepLast(keep_last) if drop is None else Interval(keep_last, drop)
