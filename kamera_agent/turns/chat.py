"""Answers conversations over a Kamera: the part that every front end shares."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from reprlib import repr as short
from typing import NamedTuple

from kamera_agent.closing import Closing
from kamera_agent.config import Demand
from kamera_agent.errors import InputError, SettingError, StoreClosedError, WindowError
from kamera_agent.kamera import Kamera
from kamera_agent.pocket.weights import POCKET
from kamera_agent.store.base import Store
from kamera_agent.telemetry.drift import Drift, Witness
from kamera_agent.telemetry.guard import Guard
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.telemetry.record import AnswerRecord, make_record
from kamera_agent.telemetry.spans import answer_span
from kamera_agent.telemetry.trace import Trace
from kamera_agent.trouble import Trouble
from kamera_agent.turns.background import Cancelled, Stoppable, never
from kamera_agent.turns.conversations import Caller, Conversations, Standing
from kamera_agent.turns.conversations import Live as Held
from kamera_agent.turns.documents import keep_long_texts
from kamera_agent.turns.grammar import Grammars
from kamera_agent.turns.keywords import Schema
from kamera_agent.turns.loans import Loan
from kamera_agent.turns.message import Message
from kamera_agent.turns.outline import Outline, Outliner
from kamera_agent.turns.pixels import check_pixels
from kamera_agent.turns.source import Options, name_of, options_of
from kamera_agent.turns.tool_calls import ParsedReply, ReplyReader, parse_reply
from kamera_agent.turns.tools import check_tools
from kamera_agent.turns.transcript import transcribe
from kamera_agent.vision.image import decode_image
from kamera_agent.window.constraint import Constraint
from kamera_agent.window.content import Content
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Layout
from kamera_agent.window.reply import Reply, ReplyStream
from kamera_agent.window.sampler import SamplingOptions
from kamera_agent.window.window import Window

logger = logging.getLogger("kamera_agent.turns")

# Most tokens of a reply, where the window has room: a call may hold a whole file.
MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to answer, and how.

    conversation: its id. agent: which of several that share the conversation; the nodes of a LangGraph run, say.
    namespace: nothing is shared with requests of another one, conversations and chunks alike; None for that of the
    Kamera's settings.
    tools: in OpenAI's form. tool_choice: "auto" or None leaves calls to the model, "none" forbids calls, "any" forces
    a call, and a name forces a call of that tool. schema: a JSON schema that the reply must follow; it takes precedence
    over a forced call. stop: words that end the reply and are not part of it.
    expected: the messages as the next request will have them, up to the reply. Where there are none, or the same, the
    next request is foreseen by how the last ones differ.
    demand: what KV the answer may use; None leaves it to the settings.
    Raises InputError for tools of another form.
    """

    messages: Sequence[Message]
    conversation: str = ""
    agent: str = ""
    namespace: str | None = None
    tools: Sequence[Schema] = ()
    tool_choice: str | None = None
    schema: Schema | None = None
    max_tokens: int = MAX_TOKENS
    stop: Sequence[str] = ()
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    expected: Sequence[Message] = ()
    demand: Demand | None = None

    def __post_init__(self) -> None:
        check_tools(self.tools)

    def reader(self) -> ReplyReader:
        """Takes the reply to this request apart while it is generated."""
        has_calls = self.schema is None
        is_forced = has_calls and self.tool_choice not in (None, "auto", "none")
        return ReplyReader(has_calls=has_calls, is_forced=is_forced)

    def parse(self, reply: Reply) -> ParsedReply:
        """Take the whole reply to this request apart."""
        return parse_reply(reply.text, self.reader(), cut=reply.finish_reason == "length")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a chat.

    max_conversations: those with live windows. max_bytes: the KV pools of these windows and what they keep for recall.
    max_string: characters of a string in a forced call or in JSON where the schema sets no bound; None sets none.
    """

    max_conversations: int
    max_bytes: int
    max_string: int | None


class Reading(NamedTuple):
    """A system prompt, the contents after it, and the outline of both."""

    system: str
    contents: list[Content]
    outline: Outline


class Live(NamedTuple):
    """An open Kamera with the conversations, outlines and grammars of one chat."""

    kamera: Kamera
    conversations: Conversations
    outliner: Outliner
    grammars: Grammars

    def read(self, messages: Sequence[Message], tools: Sequence[Schema], cancelled: Cancelled = never) -> Reading:
        """Messages as contents of a window. cancelled: as of Outliner.outline(). Raises what transcribe raises."""
        family, settings = self.kamera.family, self.kamera.settings
        transcript = transcribe(family, messages, tools)
        outline, contents = self.outliner.outline(transcript, cancelled)
        return Reading(transcript.system, keep_long_texts(contents, transcript.system, family, settings), outline)


class Chat(Closing):
    """Answers requests over one model, with a live window per conversation.

    The Kamera belongs to its owner, or is borrowed by the name of its model when it is first needed. Safe for use from
    several threads.
    """

    def __init__(
        self,
        kamera: Kamera | None,
        model: str | None,
        options: Options,
        limits: Limits,
        *,
        metrics: Metrics | None = None,
        trace: Trace | None = None,
        guard: Guard | None = None,
    ) -> None:
        """kamera: None borrows the Kamera of `model`, loaded with `options`. Nothing is loaded yet."""
        self._kamera, self._limits = kamera, limits
        self._metrics, self._trace, self._guard = metrics, trace, guard
        self.model_name = str(model) if kamera is None else name_of(kamera)
        self.options = options if kamera is None else options_of(kamera)
        self._loan: Loan | None = None
        self._live: Live | None = None
        self._closed = False
        self._others: dict[str, Chat] = {}
        self._trouble = Trouble(logger, "answers are not reported in full", "answers are reported in full again")
        self._opening_lock = threading.Lock()
        # Apart from the other lock, so that a call to another model does not wait while this one loads.
        self._lock = threading.Lock()

    def open(self) -> Live:
        """Open the Kamera now, if it is not open yet. Raises what Loan raises, and StoreClosedError after close()."""
        with self._opening_lock:
            self._require_open()
            if self._live is None:
                self._live = self._start(self._kamera or self._borrow())
            return self._live

    def close(self) -> None:
        """Release the windows and give back borrowed Kameras. Idempotent. A Kamera of its owner stays open."""
        with self._lock:
            self._closed = True
        for other in self._others.values():
            other.close()
        with self._opening_lock:
            self._live = None
            if self._loan:
                self._loan.close()

    def over(self, model: str | None) -> Chat:
        """The chat that answers for a model: this one, or one with the same options and limits over another model.

        The other chat is kept for later calls and closed with this one. Raises InputError for another type than a str,
        and StoreClosedError after close().
        """
        if model is not None and not isinstance(model, str):
            raise InputError(f"model is {short(model)}; use a hub id, a folder or {POCKET!r}, as a str.")
        if not model or model == self.model_name:
            return self
        with self._lock:
            self._require_open()
            if model not in self._others:
                options = {name: value for name, value in self.options.items() if name != "revision"}
                self._others[model] = Chat(
                    None, model, options, self._limits, metrics=self._metrics, trace=self._trace, guard=self._guard
                )
            return self._others[model]

    def count_tokens(self, messages: Sequence[Message], tools: Sequence[Schema] = ()) -> int:
        """Tokens of a new window that is about to answer these messages. Opens the Kamera.

        Raises InputError for messages that the window could not hold.
        """
        check_tools(tools)
        live = self.open()
        kamera, reading = live.kamera, live.read(messages, tools)
        check_pixels(reading.contents)
        items = Items(kamera.family, kamera.settings, reading.system).resolve(reading.contents)
        return Layout(kamera.family).places(items, "reply")[-1].end_order

    def standing(self, namespace: str | None) -> list[Standing]:
        """How the live windows of a namespace stand. Opens the Kamera."""
        return self.open().conversations.standing(namespace)

    def count_image_tokens(self, image: bytes) -> int:
        """Tokens of an encoded image in a window. Opens the Kamera. Raises ImageError."""
        kamera = self.open().kamera
        return len(kamera.family.image_chunk(decode_image(image), kamera.settings.namespace).token_ids)

    @contextmanager
    def answer(self, request: Request, cancelled: Cancelled = never) -> Iterator[ReplyStream]:
        """Answer a request as a stream of text, calls included. The conversation is busy until the context ends.

        cancelled: looked at before an image is decoded, and before each token; where it returns True, GeneratorExit is
            raised.
        Raises InputError for a request that cannot be answered, and what open() and Window.sync raise.
        """
        live = self.open()
        # Tools that may not be called stay in the prompt: they are part of its beginning, which would change otherwise.
        reading = live.read(request.messages, request.tools, cancelled)
        caller = Caller(request.conversation, request.agent, request.namespace)
        constraint: Constraint | None
        if request.schema is None:
            constraint = live.grammars.chosen(request.tools, request.tool_choice)
        else:
            constraint = live.grammars.json(request.schema)
        with (
            answer_span(self.model_name, request.conversation) as report,
            live.conversations.hold(caller, reading.outline, cancelled) as held,
        ):
            window, watch = held.window, held.watch
            held.begin(reading.contents, reading.system, reading.outline, request.demand)
            witness = Witness(constraint)
            # Now, because the answer becomes a part of the window.
            reference = full_prefill = None
            with self._trouble.contained():
                reference = window.reference_logits() if self._trace and self._trace.drift_is_due() else None
                full_prefill = window.full_prefill() if watch and watch.is_due else None
            with window.stream(
                max_tokens=request.max_tokens,
                stop=request.stop,
                constraint=Stoppable(cancelled, witness),
                **request.sampling,
            ) as stream:
                yield stream
            try:
                reply = stream.reply
            except WindowError:  # The caller left before the end.
                return
            held.end(reply)
            if live.kamera.settings.heal == "ahead":
                self._expect(live, held, request, reply)
            with self._trouble.contained():
                report(reply)
                drift = None if reference is None else witness.measure(reference)
                record = self._observe(reply, window, request.conversation, drift)
                if watch and not reply.plan.is_exact:
                    if drift:
                        watch.measured(drift)
                    elif full_prefill:
                        reported = partial(_report_later, self._metrics, self._trace, self.model_name, record)
                        window.idle.then(partial(watch.compare, witness, full_prefill, reported))

    def _expect(self, live: Live, held: Held, request: Request, reply: Reply) -> None:
        """Tell the window what the next request will begin with, where it is known."""
        foreseen = held.forecast.next(request.messages)
        known = request.expected not in ((), request.messages)
        expected = request.expected if known else foreseen
        if expected is None:
            return
        said = request.parse(reply).message(reply.text)
        reading = live.read([*expected, said], request.tools)
        held.expect(reading.contents, reading.system, reading.outline)

    def _observe(self, reply: Reply, window: Window, conversation: str, drift: Drift | None) -> AnswerRecord | None:
        if self._metrics:
            self._metrics.observe(reply, self.model_name, exact_only=window.exact_only)
            if drift and not reply.plan.is_exact:
                self._metrics.observe_drift(drift, self.model_name)
        if not self._trace:
            return None
        thumbnails = self._trace.thumbnails
        record = make_record(reply, window, conversation, self.model_name, thumbnails=thumbnails, drift=drift)
        self._trace.write(record)
        return record

    @property
    def is_encrypted(self) -> bool:
        """Whether the store on the disk is encrypted. Loads nothing."""
        store = self.options.get("store") if self._kamera is None else self._kamera.store
        return store.is_encrypted if isinstance(store, Store) else self.options.get("encryption_key") is not None

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError("This chat model was closed; make a new one.")

    def _borrow(self) -> Kamera:
        self._loan = Loan(self.model_name, self.options)
        return self._loan.kamera

    def _start(self, kamera: Kamera) -> Live:
        if self._trace and self._trace.thumbnails and kamera.store.is_encrypted:
            raise SettingError(
                "The store is encrypted, and the thumbnails of a trace are not; use Trace(thumbnails=False), or no "
                "encryption_key."
            )
        if self._metrics:
            self._metrics.watch(kamera, self.model_name)
        return Live(
            kamera,
            Conversations(kamera, self._limits.max_conversations, self._limits.max_bytes, self._guard),
            Outliner(lambda pixels: kamera.family.image_chunk(pixels, kamera.settings.namespace)),
            Grammars(kamera.family.processors.tokenizer, self._limits.max_string),
        )


def _report_later(
    metrics: Metrics | None,
    trace: Trace | None,
    model_name: str,
    record: AnswerRecord | None,
    drift: Drift | None,
    seconds: float,
) -> None:
    """Report a comparison that was made after its answer. No method: a window that waits would keep its chat alive."""
    if metrics:
        metrics.observe_drift(drift, model_name, seconds)
    if trace and record and drift:
        trace.write_drift(record, drift)
