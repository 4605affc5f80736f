"""The entrance: whom a request comes from, whether there is a place for it, and how large it may be."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kamera_agent.serve.address import host_of, is_loopback
from kamera_agent.serve.errors import Refused, respond
from kamera_agent.serve.keys import Keys
from kamera_agent.serve.queue import Queue

# Says nothing of clients, and whoever watches the process has no key.
OPEN = "/health"
MIB = 1 << 20


class Entrance:
    """Lets requests in that have a key and find a place, and reads no more of a body than it may have.

    Puts the namespace of the client into the state of the request, None without keys; and the place of a POST.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, queue: Queue, max_body_bytes: int, body_s: float) -> None:
        """keys: None lets in what is sent to this machine by a name of its own. body_s: in which a body must come."""
        self._app, self._keys, self._queue = app, keys, queue
        self._max_body_bytes, self._body_s = max_body_bytes, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            scope.setdefault("state", {})["namespace"] = None if scope["path"] == OPEN else self._namespace(headers)
            if scope["method"] != "POST":
                await self._app(scope, receive, send)
                return
            _check_type(headers.get("content-type", ""))
            self._check_size(int(headers.get("content-length", 0)))
            with self._queue.place() as place:
                scope["state"]["place"] = place
                await self._app(scope, self._bounded(receive), send)
        except Refused as refused:
            await respond(refused, scope["path"])(scope, receive, send)

    def _namespace(self, headers: Headers) -> str | None:
        if self._keys is None:
            # A page in a browser of this machine can have a name of its own point here.
            if not is_loopback(host_of(headers.get("host", ""))):
                raise Refused(403, "Without API keys, this server answers to localhost and 127.0.0.1 only.")
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        namespace = self._keys.namespace(key)
        if namespace is None:
            message = "The API key is missing or unknown; send it as a bearer token, or as x-api-key."
            raise Refused(401, message, "invalid_api_key")
        return namespace

    def _bounded(self, receive: Receive) -> Receive:
        num_bytes, end = 0, asyncio.get_running_loop().time() + self._body_s
        is_complete = False

        async def bounded() -> Message:
            nonlocal num_bytes, is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"The body has not come within {self._body_s:g} s.") from None
            num_bytes += len(message.get("body", b""))
            self._check_size(num_bytes)
            is_complete = not message.get("more_body", False)
            return message

        return bounded

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_body_bytes:
            raise Refused(413, f"The body has more than {self._max_body_bytes // MIB} MiB; send fewer images.")


def _check_type(content_type: str) -> None:
    # Any page in a browser may send other types to this server, and needs to ask nobody.
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, f"The content-type is {content_type[:60]!r}; send application/json.")
