"""`kamera serve`: a model over HTTP. Torch is imported once there is an address for it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import typer

from kamera_agent.errors import SettingError
from kamera_agent.serve.address import is_loopback
from kamera_agent.serve.keys import Keys
from kamera_agent.serve.server import listen, serve


def serve_model(model: str, host: str, port: int, key_file: Path | None, store: Path, key: str | None) -> None:
    """Serve until a signal ends it. Raises KameraError before that.

    key_file: with the keys of clients. key: of an encrypted store.
    """
    keys = Keys.read(key_file) if key_file else None
    if keys is None and not is_loopback(host):
        raise SettingError(f"Others can reach {host}; give --api-key-file, or listen on 127.0.0.1.")
    with listen(host, port) as listening:
        from kamera_agent.kamera import Kamera
        from kamera_agent.serve.app import make_app
        from kamera_agent.telemetry.metrics import Metrics

        with Kamera.from_pretrained(model, store=store, encryption_key=key) as kamera:
            address = f"[{host}]" if ":" in host else host
            typer.echo(f"{model} is served at http://{address}:{listening.getsockname()[1]}/v1")
            metrics = Metrics() if find_spec("prometheus_client") else None
            serve(make_app(kamera, keys, metrics), listening)
