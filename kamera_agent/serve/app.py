"""The server's app: its paths, over one Kamera."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from kamera_agent.errors import KameraError
from kamera_agent.kamera import Kamera
from kamera_agent.serve.client import Client
from kamera_agent.serve.completions import Completions
from kamera_agent.serve.connection import EventStream, while_connected
from kamera_agent.serve.entrance import MIB, Entrance
from kamera_agent.serve.errors import Refused, as_json, refusal_of, respond
from kamera_agent.serve.keys import Keys
from kamera_agent.serve.protocol import ChatRequest
from kamera_agent.serve.queue import Queue
from kamera_agent.serve.reading import ignored_by
from kamera_agent.serve.reply import Json
from kamera_agent.telemetry.guard import Guard
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.turns.chat import Chat, Limits

IGNORED = "x-kamera-ignored"
# Of a field's name in that header, and of its names.
MAX_NAME, MAX_NAMES = 64, 20
METRICS_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class Bounds(NamedTuple):
    """Bounds of a server.

    num_answered: requests that are answered at once. num_waiting: others that may be in the server. body_bytes: of a
    request. conversations: limits of the live windows.
    """

    num_answered: int = 8
    num_waiting: int = 64
    body_bytes: int = 64 * MIB
    conversations: Limits = Limits(max_conversations=32, max_bytes=8 << 30, max_string=None)


BOUNDS = Bounds()


def make_app(
    kamera: Kamera, keys: Keys | None = None, metrics: Metrics | None = None, bounds: Bounds = BOUNDS
) -> FastAPI:
    """An ASGI app that answers over a Kamera, which stays open at its end.

    keys: of the clients that are let in; None lets in who calls this machine by a name of its own. metrics: answered at
    /metrics.
    """
    chat = Chat(kamera, None, {}, bounds.conversations, metrics=metrics, guard=Guard())
    queue = Queue(bounds.num_answered, bounds.num_waiting)
    completions = Completions(chat, queue)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        chat.close()
        # What was computed lasts, even if the process is killed after this.
        await asyncio.to_thread(kamera.flush)

    # The pages of the API would load scripts from another server.
    app = FastAPI(title="kamera", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Entrance, keys=keys, queue=queue, max_body_bytes=bounds.body_bytes)
    for kind in (HTTPException, RequestValidationError, KameraError, RecursionError, Exception):
        app.add_exception_handler(kind, _refuse)

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> Json:
        return {"object": "list", "data": [_describe(chat.model_name)]}

    @app.get("/v1/models/{model:path}")
    async def show_model(model: str) -> Json:
        _check_model(model, chat)
        return _describe(model)

    @app.post("/v1/chat/completions")
    async def complete(
        asked: ChatRequest, request: Request, x_kamera_thread: Annotated[str | None, Header()] = None
    ) -> Response:
        _check_model(asked.model, chat)
        headers = _headers(ignored_by(asked))
        thread = x_kamera_thread or asked.prompt_cache_key or asked.user
        client = Client(request.state.namespace, thread)
        if not asked.stream:
            return as_json(await while_connected(request, completions.whole(asked, client)), headers=headers)
        chunks = completions.chunks(asked, client)
        return EventStream(await while_connected(request, anext(chunks)), chunks, headers)

    if metrics:
        page = metrics.page
        app.get("/metrics")(lambda: Response(page(), media_type=METRICS_FORMAT))

    return app


async def _refuse(_: Request, error: Exception) -> Response:
    return respond(refusal_of(error))


def _check_model(name: str | None, chat: Chat) -> None:
    if name not in (None, chat.model_name):
        message = f"There is no model {name[:200]!r} here; use {chat.model_name!r}."
        raise Refused(404, message, "model_not_found", "model")


def _describe(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "kamera"}


def _headers(ignored: list[str]) -> dict[str, str]:
    """The header that names ignored fields, in characters that a header may have."""
    names = [quote(name.encode("utf-8", "replace")[:MAX_NAME], safe="") for name in sorted(ignored)[:MAX_NAMES]]
    return {IGNORED: ", ".join(names)} if names else {}
