"""Servers in processes of their own, and their answers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import APIConnectionError, OpenAI

from benchmarks.serve.clients import Messages

MAX_TOKENS = 8
START_S = 120
# A server rests once it takes no more than this share of a core.
IDLE, LOOK_S = 0.1, 0.2


@dataclass(frozen=True, slots=True)
class Given:
    """An answer. first_ms: from the request to the first piece of it.

    prompt, computed: tokens; computed is None where the server does not tell.
    """

    text: str
    first_ms: float
    prompt: int | None = None
    computed: int | None = None


class Server:
    """A server in a process of its own."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        url: str,
        model: str,
        headers: Mapping[str, str] | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """headers, asked: of every request, beside its messages."""
        self._process, self._model, self._asked = process, model, asked or {}
        self.client = OpenAI(base_url=url, api_key="none", default_headers=headers, max_retries=0, timeout=START_S)

    def answer(self, messages: Messages) -> Given:
        """The greedy answer, as a stream."""
        start, first_ms, texts, usage = time.perf_counter(), 0.0, [], None
        stream = self.client.chat.completions.create(
            model=self._model, messages=messages, max_tokens=MAX_TOKENS, temperature=0, stream=True, **self._asked
        )
        for event in stream:
            usage = event.usage or usage
            if event.choices and (piece := event.choices[0].delta.content):
                first_ms = first_ms or 1e3 * (time.perf_counter() - start)
                texts.append(piece)
        first_ms = first_ms or 1e3 * (time.perf_counter() - start)
        details = usage and usage.prompt_tokens_details
        computed = usage.prompt_tokens - (details.cached_tokens or 0) if details else None
        return Given("".join(texts), first_ms, usage.prompt_tokens if usage else None, computed)

    def rest(self) -> float:
        """Wait until the process has nothing left to do. Returns the seconds of a core that it took until then."""
        start = before = self._cpu_s()
        while True:
            time.sleep(LOOK_S)
            now = self._cpu_s()
            if now - before <= IDLE * LOOK_S:
                return now - start
            before = now

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def run_kamera(folder: Path, store: Path, fidelity: str = "refresh") -> Iterator[Server]:
    """`kamera serve` with its default settings. fidelity: that all its answers are asked for."""
    program = Path(sys.executable).with_name("kamera")
    command = [str(program), "serve", str(folder), "--port", "0", "--store", str(store)]
    with _run(command, subprocess.PIPE) as process:
        assert process.stdout
        found = next(filter(None, (re.search(r"http://\S+/v1", line) for line in process.stdout)), None)
        if found is None:
            raise SystemExit(f"{' '.join(command)} ended without an address.")
        headers = {"x-kamera-fidelity": fidelity}
        server = Server(process, found[0], str(folder), headers, asked={"stream_options": {"include_usage": True}})
        with server.client:
            yield server


@contextmanager
def run_transformers(program: Path, folder: Path) -> Iterator[Server]:
    """`transformers serve`. program: its path."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(program), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    with _run(command, subprocess.DEVNULL) as process:
        server = Server(process, f"http://127.0.0.1:{port}/v1", str(folder))
        with server.client:
            _wait(server)
            yield server


@contextmanager
def _run(command: Sequence[str], output: int) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, text=True, env=environment)
    with process:
        try:
            yield process
        finally:
            process.terminate()


def _wait(server: Server) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            server.client.models.list()
        except APIConnectionError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"transformers serve did not answer within {START_S} s.")
