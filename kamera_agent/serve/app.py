"""The server's app: its paths, over one Kamera."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from kamera_agent.errors import KameraError
from kamera_agent.kamera import Kamera
from kamera_agent.serve.answers import Answers
from kamera_agent.serve.completions.path import completions
from kamera_agent.serve.entrance import MIB, Entrance
from kamera_agent.serve.errors import refusal_of, respond
from kamera_agent.serve.form import Json
from kamera_agent.serve.keys import Keys
from kamera_agent.serve.messages.path import messages
from kamera_agent.serve.queue import Queue
from kamera_agent.serve.responses.path import responses
from kamera_agent.telemetry.guard import Guard
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.turns.chat import Chat, Limits
from kamera_agent.turns.policy import Policy

METRICS_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class Bounds(NamedTuple):
    """Bounds of a server.

    num_answered: requests that are answered at once. num_waiting: others that may be in the server. body_bytes: of a
    request. body_s, wait_s, answer_s: seconds until all of a body has come, in which a request may wait for its turn,
    and that its answer may take. conversations: limits of the live windows.
    """

    num_answered: int = 8
    num_waiting: int = 64
    body_bytes: int = 64 * MIB
    body_s: float = 60.0
    wait_s: float = 300.0
    answer_s: float = 600.0
    conversations: Limits = Limits(max_conversations=32, max_bytes=8 << 30, max_string=None)


BOUNDS = Bounds()


def make_app(
    kamera: Kamera,
    keys: Keys | None = None,
    metrics: Metrics | None = None,
    bounds: Bounds = BOUNDS,
    policy: Policy | None = None,
) -> FastAPI:
    """An ASGI app that answers over a Kamera, which stays open at its end.

    keys: of the clients that are let in; None lets in who calls this machine by a name of its own. metrics: answered at
    /metrics. policy: which screenshots are shown of those that clients send; None shows all.
    """
    chat = Chat(kamera, None, {}, bounds.conversations, metrics=metrics, guard=Guard())
    queue = Queue(bounds.num_answered, bounds.num_waiting, bounds.wait_s)
    answers = Answers(chat, queue, bounds.answer_s, policy)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        chat.close()
        # What was computed lasts, even if the process is killed after this.
        await asyncio.to_thread(kamera.flush)

    # The pages of the API would load scripts from another server.
    app = FastAPI(title="kamera", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Entrance, keys=keys, queue=queue, max_body_bytes=bounds.body_bytes, body_s=bounds.body_s)
    for kind in (HTTPException, RequestValidationError, KameraError, RecursionError, Exception):
        app.add_exception_handler(kind, _refuse)

    @app.get("/")
    async def show_status(request: Request) -> HTMLResponse:
        page = await asyncio.to_thread(answers.status, request.state.namespace)
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> Json:
        return {"object": "list", "data": [_describe(answers.model_name)]}

    @app.get("/v1/models/{model:path}")
    async def show_model(model: str) -> Json:
        answers.check_model(model)
        return _describe(model)

    for router in (completions(answers), messages(answers), responses(answers)):
        app.include_router(router)

    if metrics:
        page = metrics.page
        app.get("/metrics")(lambda: Response(page(), media_type=METRICS_FORMAT))

    return app


async def _refuse(request: Request, error: Exception) -> Response:
    return respond(refusal_of(error), request.url.path)


def _describe(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "kamera"}
