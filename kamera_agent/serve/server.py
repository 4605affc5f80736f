"""The server: an app on an address, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from kamera_agent.errors import SettingError

# Answers that are being given at the end have so long; then they are stopped.
GRACE_S = 10
# A client that reads nothing for so long, while more waits for it than its connection holds, is cut off.
WRITE_S = 60

logger = logging.getLogger("kamera_agent.serve")


class Connection(H11Protocol):
    """A connection that does not wait for ever for its client to read."""

    _end: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Called once the client has left too much unread."""
        super().pause_writing()
        self._end = self.loop.call_later(WRITE_S, self._cut)

    def resume_writing(self) -> None:
        """Called once the client has read most of it."""
        super().resume_writing()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called at the end."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._end:
            self._end.cancel()

    def _cut(self) -> None:
        logger.warning("A client has read nothing for %g s; its connection is cut.", WRITE_S)
        # Closing it would wait until the client has read what was sent.
        self.transport.abort()


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
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    with suppress(KeyboardInterrupt):
        make_server(app).run(sockets=[listening])
