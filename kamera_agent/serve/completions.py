"""Chat completions: requests answered over a chat, each in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from kamera_agent.serve.client import Client, Place
from kamera_agent.serve.protocol import ChatRequest
from kamera_agent.serve.queue import Queue
from kamera_agent.serve.reading import read_request
from kamera_agent.serve.reply import OPENING, Draft, Form, Json
from kamera_agent.serve.said import Said
from kamera_agent.turns.background import Cancelled, Work, aread
from kamera_agent.turns.chat import Chat


class Completions:
    """Answers the requests of clients. Where a generator is closed, or its task cancelled, the answer stops."""

    def __init__(self, chat: Chat, queue: Queue) -> None:
        self._chat, self._queue = chat, queue
        self._said = Said()

    async def whole(self, asked: ChatRequest, client: Client) -> Json:
        """The completion. Raises KameraError for a request that cannot be answered."""

        def work(cancelled: Cancelled) -> Iterator[Json]:
            draft = Draft()
            for _ in self._deltas(asked, client, draft, cancelled):
                pass
            yield Form(self._chat.model_name).whole(draft)

        async with aclosing(self._in_turn(work)) as items:
            return await anext(items)

    def chunks(self, asked: ChatRequest, client: Client) -> AsyncGenerator[Json, None]:
        """The chunks of the completion. Raises as whole() does, in most cases before the first chunk."""

        def work(cancelled: Cancelled) -> Iterator[Json]:
            form, draft = Form(self._chat.model_name, has_usage=asked.includes_usage), Draft()
            for delta in self._deltas(asked, client, draft, cancelled):
                yield form.chunk(delta)
            yield from form.ending(draft)

        return self._in_turn(work)

    async def _in_turn(self, work: Work[Json]) -> AsyncGenerator[Json, None]:
        async with self._queue.turn, aclosing(aread(work)) as items:
            async for item in items:
                yield item

    def _deltas(self, asked: ChatRequest, client: Client, draft: Draft, cancelled: Cancelled) -> Iterator[Json]:
        """The deltas of a reply, which is then in the draft."""
        request = read_request(asked, client, self._said)
        reader = request.reader()
        with self._chat.answer(request, cancelled) as stream:
            # The window holds the messages: most of what is refused has been refused by now.
            yield OPENING
            for text in stream:
                yield from map(draft.add, reader.feed(text))
            draft.reply = reply = stream.reply
        yield from map(draft.add, reader.finish(cut=reply.finish_reason == "length"))
        # Before the client has all of the reply, and can send it back.
        place = Place(request.namespace, request.conversation)
        self._said.note(place, draft.text, draft.forms, reader.parsed.message(reply.text))
