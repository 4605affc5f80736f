"""Servers for the tests: Redis, and one that speaks S3."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Server:
    """A process that listens on a port of this machine."""

    def __init__(self, command: list[str], port: int, answers: Callable[[], object]) -> None:
        self.port, self._command, self._answers = port, command, answers
        self.start()

    def start(self) -> None:
        """Start it, anew after kill(), and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self._answers()
                return
            except Exception:  # noqa: BLE001 - whatever the client says of one that is not there yet
                assert self._process.poll() is None, f"{self._command[0]} ended by itself"
                time.sleep(0.02)
        raise TimeoutError(f"{self._command[0]} does not answer")

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()


def start_redis(folder: Path, *options: str) -> Server:
    """Without persistence: what a killed server held is gone. Skips the test where there is no server."""
    redis = pytest.importorskip("redis", reason="needs the extra redis")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("needs redis-server or valkey-server on the PATH")
    port = free_port()

    def ping() -> None:
        with redis.Redis(port=port, socket_timeout=1) as client:
            client.ping()

    fixed = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Server([program, *fixed, *options], port, ping)


def start_s3() -> Server:
    """Moto's server. Skips the test where it is not installed."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    pytest.importorskip("moto", reason="needs moto[server]")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    return Server(command, port, lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1))


def s3_environment(port: int) -> Mapping[str, str]:
    """What obstore reads, for that server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def make_bucket(port: int, name: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    # Moto takes the service from the region of the credentials.
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request")
    urllib.request.urlopen(request, timeout=30).close()


class Proxy:
    """A TCP proxy on this machine that can be made slow, silent, or cut.

    delay_s: that each piece of an answer waits. is_silent: whether answers stop. cut_after: bytes of answers on one
    connection after which it is cut; None cuts none. num_requests: pieces that came from clients.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay_s, self.is_silent, self.num_requests = 0.0, False, 0
        self.cut_after: int | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()
        for end in list(self._open):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
                for pump in (self._pump_requests, self._pump_answers):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _pump_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while piece := client.recv(1 << 16):
                self.num_requests += 1
                server.sendall(piece)

    def _pump_answers(self, client: socket.socket, server: socket.socket) -> None:
        num_bytes = 0
        with suppress(OSError), client, server:
            while piece := server.recv(1 << 12):
                time.sleep(self.delay_s)
                num_bytes += len(piece)
                if self.is_silent:
                    continue
                if self.cut_after is not None and num_bytes > self.cut_after:
                    client.sendall(piece[: len(piece) // 2])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(piece)
