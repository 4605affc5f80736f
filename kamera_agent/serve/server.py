"""The server: an app on an address, until a signal ends it."""

from __future__ import annotations

import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from kamera_agent.errors import SettingError

# Answers that are being given at the end have so long; then they are stopped.
GRACE_S = 10


def listen(host: str, port: int) -> socket.socket:
    """A socket for the server, taken before the model loads. port: 0 takes a free one. Raises SettingError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise SettingError(f"Cannot listen on {host}, port {port}: {error}; use another --host or --port.") from error


def make_server(app: FastAPI) -> uvicorn.Server:
    """A server of an app; run(sockets=[...]) serves until a signal ends it, or should_exit is set."""
    return uvicorn.Server(
        uvicorn.Config(app, ws="none", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S)
    )


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    with suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[listening])
