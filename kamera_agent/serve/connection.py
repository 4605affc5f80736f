"""Connections to clients, who may hang up at any time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from kamera_agent.serve.errors import Refused, refusal_of
from kamera_agent.serve.form import Form, Json

T = TypeVar("T")

logger = logging.getLogger("kamera_agent.serve")

# That of other servers for a client that has gone; nobody reads it.
GONE = 499


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of work on a request whose body has been read. Where the client hangs up before, it is cancelled.

    Raises Refused in that case.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Refused(GONE, "The client has gone.")
    finally:
        gone.cancel()
        task.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Sends the events of a reply as server-sent events, and closes their generator at the end, or at a hang-up."""

    def __init__(self, first: Json, rest: AsyncGenerator[Json, None], form: Form, headers: Mapping[str, str]) -> None:
        headers = {**headers, "cache-control": "no-cache"}
        super().__init__(_lines(first, rest, form), headers=headers, media_type="text/event-stream")
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def _lines(first: Json, rest: AsyncIterator[Json], form: Form) -> AsyncIterator[str]:
    try:
        yield _lines_of(first)
        async for event in rest:
            yield _lines_of(event)
    except Exception as error:
        refused = refusal_of(error)
        if refused.status_code >= 500:
            logger.exception("A stream has failed.")
        yield _lines_of(form.failure(refused))
    else:
        if form.DONE:
            yield f"data: {form.DONE}\n\n"


def _lines_of(event: Json) -> str:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n"
