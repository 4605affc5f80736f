"""Answers to the requests of clients, over a chat, each in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import TypeVar, cast, get_args
from urllib.parse import quote

from fastapi import Request, Response

from kamera_agent.config import Demand
from kamera_agent.errors import InputError
from kamera_agent.serve.ask import Ask
from kamera_agent.serve.body import Body
from kamera_agent.serve.client import Client, Place
from kamera_agent.serve.connection import EventStream, while_connected
from kamera_agent.serve.errors import Refused, as_json
from kamera_agent.serve.form import Form, Json
from kamera_agent.serve.queue import Queue
from kamera_agent.serve.said import Said
from kamera_agent.serve.sent import Sent
from kamera_agent.serve.status import Recent
from kamera_agent.turns.background import Cancelled, Work, aread
from kamera_agent.turns.chat import Chat
from kamera_agent.turns.chat import Request as ChatRequest
from kamera_agent.turns.policy import Policy
from kamera_agent.turns.stubs import Stubs

THREAD = "x-kamera-thread"
FIDELITY = "x-kamera-fidelity"
IGNORED = "x-kamera-ignored"
# Of a field's name in that header, and of its names.
MAX_NAME, MAX_NAMES = 64, 20

T = TypeVar("T")
Read = Callable[[], Ask]


class Answers:
    """Answers requests in every protocol. Where a client hangs up, its answer stops.

    answer_s: that an answer may take. policy: which screenshots are shown of those that clients send; None shows all.
    """

    def __init__(self, chat: Chat, queue: Queue, answer_s: float, policy: Policy | None) -> None:
        self._chat, self._queue, self._answer_s = chat, queue, answer_s
        self._stubs = Stubs(policy, chat.count_image_tokens) if policy else None
        self._said = Said()
        self._recent = Recent(chat.model_name)

    @property
    def model_name(self) -> str:
        """The name of the model that answers."""
        return self._chat.model_name

    def status(self, namespace: str | None) -> str:
        """The page of a namespace, as HTML."""
        return self._recent.page(namespace, self._chat.standing(namespace))

    def check_model(self, name: str | None) -> None:
        """Raise Refused for the name of another model."""
        if name not in (None, self.model_name):
            message = f"There is no model {name[:200]!r} here; use {self.model_name!r}."
            raise Refused(404, message, "model_not_found", "model")

    async def respond(self, request: Request, body: Body, read: Read, form: Form) -> Response:
        """The response to a request, whole or as a stream. read: reads the body; called in the thread of the answer.

        Raises KameraError for a request that cannot be answered; for a stream in most cases, too.
        """
        self.check_model(body.model)
        headers = _headers(body.ignored())
        demand = _read_demand(request.headers.get(FIDELITY))
        client = _client(request, body, demand)
        if not body.stream:
            whole = self._only(request, lambda cancelled: self._whole(read, client, form, cancelled))
            return as_json(await whole, headers=headers)
        events = self._in_turn(request, lambda cancelled: self._events(read, client, form, cancelled))
        return EventStream(await while_connected(request, anext(events)), events, form, headers)

    async def count_tokens(self, request: Request, body: Body, read: Read) -> int:
        """Tokens of the prompt that a request would be answered over. Raises InputError."""
        client = _client(request, body)

        def work(_: Cancelled) -> Iterator[int]:
            shown = self._shown(read().request(client, self._said))
            yield self._chat.count_tokens(shown.messages, shown.tools)

        return await self._only(request, work)

    async def _only(self, request: Request, work: Work[T]) -> T:
        """The only item of work on a request, once the work has ended."""

        async def only() -> T:
            async with aclosing(self._in_turn(request, work)) as items:
                [item] = [item async for item in items]
                return item

        return await while_connected(request, only())

    async def _in_turn(self, request: Request, work: Work[T]) -> AsyncGenerator[T, None]:
        await self._queue.turn(request.state.place)
        # The turn belongs to the work: a reader may be slow, or leave during a forward pass, which goes on.
        async with aclosing(aread(self._timed(work), self._queue.end)) as items:
            async for item in items:
                yield item

    def _timed(self, work: Work[T]) -> Work[T]:
        """The work, which ends with a refusal where its time is over."""

        def timed(cancelled: Cancelled) -> Iterator[T]:
            end = monotonic() + self._answer_s
            try:
                yield from work(lambda: cancelled() or monotonic() > end)
            except GeneratorExit:
                if cancelled() or monotonic() <= end:
                    raise
                raise Refused(504, f"The answer took longer than {self._answer_s:g} s, and was stopped.") from None

        return timed

    def _whole(self, read: Read, client: Client, form: Form, cancelled: Cancelled) -> Iterator[Json]:
        for _ in self._events(read, client, form, cancelled):
            pass
        yield form.whole()

    def _events(self, read: Read, client: Client, form: Form, cancelled: Cancelled) -> Iterator[Json]:
        """The events of a reply. The form has the whole, too, once they have ended."""
        ask = read()
        request = self._shown(ask.request(client, self._said))
        reader = request.reader()
        with self._chat.answer(request, cancelled) as stream:
            # The window holds the messages: most of what is refused has been refused by now.
            yield from form.opening()
            for text in stream:
                for piece in reader.feed(text):
                    yield from form.add(piece)
            reply = stream.reply
        for piece in reader.finish(cut=reply.finish_reason == "length"):
            yield from form.add(piece)
        yield from form.end(reply)
        # Before the client has all of the reply, and can send it back.
        place = Place(request.namespace, request.conversation)
        sent = Sent("assistant", (form.text,) if form.text else (), form.forms)
        self._said.note(place, ask.messages, sent, reader.parsed.message(reply.text))
        self._recent.note(request.namespace, request.conversation, reply)
        ask.keep(sent)
        yield from form.ending()

    def _shown(self, request: ChatRequest) -> ChatRequest:
        """The request as the policy shows it."""
        if self._stubs is None:
            return request
        messages, expected = self._stubs.show(request.messages)
        return replace(request, messages=messages, expected=expected)


def _read_demand(header: str | None) -> Demand | None:
    for demand in get_args(Demand):
        if header == demand:
            return cast(Demand, demand)
    if header is not None:
        raise InputError(f"{FIDELITY} is {header[:60]!r}; use one of {', '.join(get_args(Demand))}, or leave it out.")
    return None


def _client(request: Request, body: Body, demand: Demand | None = None) -> Client:
    return Client(request.state.namespace, request.headers.get(THREAD) or body.thread, demand)


def _headers(ignored: list[str]) -> dict[str, str]:
    """The header that names ignored fields, in characters that a header may have."""
    names = [quote(name.encode("utf-8", "replace")[:MAX_NAME], safe="") for name in sorted(ignored)[:MAX_NAMES]]
    return {IGNORED: ", ".join(names)} if names else {}
