"""The server under test, in a thread of this process, with a record of what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kamera_agent import Kamera
from kamera_agent.serve.app import make_app
from kamera_agent.serve.server import listen, make_server

PATHS = ("/chat/completions", "/messages")
TIMEOUT_S = 300


class Cost(NamedTuple):
    """Tokens of a prompt, and those of them that were computed."""

    prompt: int
    computed: int


class Recorder:
    """An app that notes what another one answers. requests: paths and bodies. costs: of the answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: list[tuple[str, bytes]] = []
        self.costs: list[Cost] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(PATHS):
            await self._app(scope, receive, send)
            return
        asked, told = bytearray(), bytearray()

        async def hear() -> Message:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def tell(message: Message) -> None:
            told.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, hear, tell)
        self.requests.append((scope["path"], bytes(asked)))
        self.costs.append(cost_of(bytes(told)))


def cost_of(response: bytes) -> Cost:
    """The cost of a completion or a message."""
    usage = json.loads(response)["usage"]
    if "input_tokens" in usage:
        computed = usage["input_tokens"] + usage["cache_creation_input_tokens"]
        return Cost(computed + usage["cache_read_input_tokens"], computed)
    return Cost(usage["prompt_tokens"], usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])


@contextmanager
def served(kamera: Kamera) -> Iterator[tuple[str, Recorder]]:
    """The base URL of a server on a free port, and its record."""
    recorder = Recorder(make_app(kamera))
    with listen("127.0.0.1", 0) as listening:
        server = make_server(recorder)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", recorder
        finally:
            server.should_exit = True
            thread.join()


def repeat(kamera: Kamera, requests: Sequence[tuple[str, bytes]]) -> list[Cost]:
    """The costs of the same requests over another Kamera."""
    with served(kamera) as (url, recorder), httpx.Client(timeout=TIMEOUT_S) as client:
        for path, body in requests:
            address = url.removesuffix("/v1") + path
            client.post(address, content=body, headers={"content-type": "application/json"}).raise_for_status()
    return recorder.costs
