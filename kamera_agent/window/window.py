"""The window: the ordered spans that an answer is computed over."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial, wraps
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack
from weakref import ref

import torch

from kamera_agent.config import Settings
from kamera_agent.errors import InputError, WindowError
from kamera_agent.forking import Forkable
from kamera_agent.runtime.engine import Engine
from kamera_agent.vision.image import Pixels
from kamera_agent.window.assembly import Assembled, Assembly, make_timings, make_usage
from kamera_agent.window.content import Content, DocumentContent, FramesContent, ImageContent, TextContent
from kamera_agent.window.healer import Healer
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, lay_out
from kamera_agent.window.library import Library
from kamera_agent.window.notebook import display, transcript, window_html
from kamera_agent.window.options import AnswerOptions, read_terms
from kamera_agent.window.plan import Plan
from kamera_agent.window.planner import make_plan
from kamera_agent.window.reply import Reply, ReplyStream
from kamera_agent.window.sampler import Constraint, Sampler
from kamera_agent.window.span import Span, make_span
from kamera_agent.window.streamer import Streamer

# Takes what tells whether it must give way to an answer.
IdleTask = Callable[[Callable[[], bool]], None]

P = ParamSpec("P")
T = TypeVar("T")


class _Hold:
    """Has a window to itself while it lives or until it is let go."""


class _GaveWay(Exception):
    """Ends a slice of healing, because an answer is wanted."""


def _alone(method: Callable[Concatenate[Window, P], T]) -> Callable[Concatenate[Window, P], T]:
    """Keep other edits and answers out of the window while a method runs."""

    @wraps(method)
    def alone(window: Window, /, *args: P.args, **kwargs: P.kwargs) -> T:
        hold = ref(holder := _Hold())
        try:
            window._take(hold)
            return method(window, *args, **kwargs)
        finally:
            # Before any call: Python looks for signals at calls and loops, so Ctrl-C cannot come before this.
            if window._hold is hold:
                window._hold = None
            window._engine.answers.discard(hold)
            del holder

    return alone


class Window(Forkable):
    """Holds spans and answers over them. Kamera.window() makes one.

    Editing is free: the next answer does the work for all edits at once. A method that raises leaves the window as it
    was. A window is not safe to use from several threads at once; several windows of one Kamera are.

    Once the Kamera is closed, every method that plans or computes raises StoreClosedError. A stream that has begun goes
    on to its end.
    """

    def __init__(self, engine: Engine, library: Library, healer: Healer, settings: Settings, system: str) -> None:
        super().__init__()
        self._engine = engine
        self._library = library
        self._healer = healer
        self._settings = settings
        self._family = engine.family
        self._items = Items(engine.family, settings, system)
        self._assembly = Assembly(engine, library, settings)
        # What the window is expected to hold next; None where that is what it holds.
        self._expected: list[Item] | None = None
        self._idle_task: IdleTask | None = None
        self._hold: ref[_Hold] | None = None

    def renew(self) -> None:
        self._lock = threading.Lock()
        # Held while a slice is healed.
        self._lock_of_slice = threading.Lock()

    def add_image(self, image: Any, role: str = "user") -> str:
        """Add an image at the end; returns its span id.

        image: PIL image, ndarray [H, W, 3] uint8 RGB ([H, W, 4] and [H, W] are converted), path or encoded bytes.
        Raises ImageError, or SettingError where the demanded rank is above the chunk's size.
        """
        return self._add(ImageContent(image, role))

    def add_frames(
        self, frames: Any, timestamps: Sequence[float] | None = None, role: str = "user", *, fps: float | None = None
    ) -> str:
        """Add video frames at the end as one chunk; returns its span id.

        frames: path of a clip, Frames (see sample_fps), an ndarray [N, H, W, 3] uint8 RGB, or a sequence of images.
        timestamps: seconds, one per frame, increasing; for frames without timestamps of their own.
        fps: frames to keep per second of a clip, 2 by default and at most 64 in all. Other frames it spaces 1/fps
            seconds apart, half a second by default.
        Raises VideoError, or SettingError for timestamps beside fps or a clip, and where the demanded rank is above the
        chunk's size.
        """
        return self._add(FramesContent(frames, timestamps, role, fps=fps))

    def add_text(self, text: str, role: str = "user") -> str:
        """Add a text at the end; returns its span id. Raises InputError for a text without tokens."""
        return self._add(TextContent(text, role))

    def add_document(self, text: str, role: str = "user") -> str:
        """Add a text at the end as a chunk of its own; returns its span id.

        Raises InputError for a text without tokens, or SettingError where the demanded rank is above the chunk's size.
        """
        return self._add(DocumentContent(text, role))

    @_alone
    def drop(self, span_id: str) -> None:
        """Take a span out of the window. It can be recalled. Raises UnknownSpanError."""
        self._items.drop(span_id)

    @_alone
    def recall(self, span_id: str, at: str | None = None) -> None:
        """Bring a dropped span back, before the span `at` or at the end. Raises UnknownSpanError."""
        self._items.recall(span_id, at)

    @_alone
    def reorder(self, span_ids: Sequence[str]) -> None:
        """Put the image, frames and document spans into this order; texts keep their places.

        Raises UnknownSpanError unless span_ids names each of them exactly once, and InputError for no list.
        """
        self._items.reorder(span_ids)

    @_alone
    def slide(self, keep_last: int) -> None:
        """Drop all but the last keep_last chunks; texts stay. Raises WindowError for a negative number."""
        self._items.slide(keep_last)

    @_alone
    def sync(self, spans: Iterable[Content | str], system: str | None = None) -> tuple[str, ...]:
        """Make the window hold exactly this content, in this order; returns the span ids.

        spans: contents, or ids of spans that are in the window or were dropped. A content that equals such a span
            becomes that span, so an edited message list keeps everything that was not edited.
        system: a new system prompt; None leaves it as it is.
        Raises UnknownSpanError, WindowTooLongError, and the errors of the add methods.
        """
        items = self._items.resolve(spans, system)
        self._assembly.check_length(lay_out(items, self._family))
        self._items.replace(items)
        return tuple(item.id for item in items[1:])

    @_alone
    def expect(self, spans: Iterable[Content | str] | None, system: str | None = None) -> None:
        """Say what the window will hold before its next new content comes, for heal="ahead".

        The spans are then computed in that order while no answer is wanted, so that the next answer finds them. Holds
        until the end of the next answer. Who keeps the last three screenshots knows which of them goes:

            window.expect([span_id for span_id in span_ids if span_id != oldest])

        spans, system: as for sync; None forgets what was expected. Raises the errors of sync.
        """
        self._expected = None if spans is None else self._items.resolve(spans, system)
        self._wake()

    def heal(self, gives_way: Callable[[], bool]) -> int | None:
        """Compute the next spans that are not exact, up to a chunk: those of the expected window first.

        gives_way: looked at between layers; where it returns True, the window is left as it was.
        Returns the number of tokens, 0 where all that can be is exact, and None where the window is busy or the slice
        gave way.
        """

        def tick() -> None:
            if gives_way():
                raise _GaveWay

        with self._lock_of_slice:
            if self._hold and self._hold():
                return None
            try:
                targets = self._targets(self._items.live, self._expected)
                healed = (self._assembly.heal(items, tick, beside=beside) for items, beside in targets)
                if tokens := next(filter(None, healed), 0):
                    return tokens
            except _GaveWay:
                return None
            task, self._idle_task = self._idle_task, None
            if task:
                task(gives_way)
            return 0

    def when_idle(self, task: IdleTask) -> None:
        """Have a task done once all is healed and no answer is wanted. Only the last one that was given is done."""
        self._idle_task = task
        self._healer.wake(self)

    @_alone
    def adopt(self, source: Window) -> None:
        """Copy the KV of the beginning that another window of the same Kamera has in common with this one.

        What this window has computed by now is computed again. Raises WindowError while either is busy, and InputError
        for another object.
        """
        if not isinstance(source, Window):
            raise InputError(f"Only the KV of a Window can be adopted; got a {type(source).__name__}.")
        source._lend(self._assembly, lay_out(self._items.live, self._family))

    @_alone
    def _lend(self, borrower: Assembly, items: Sequence[Item]) -> None:
        borrower.adopt(self._assembly, items)

    @_alone
    def plan(self, spans: Iterable[Content | str] | None = None) -> Plan:
        """What the next answer, or the next answer after sync(spans), keeps, moves, recalls and computes.

        Changes nothing. Raises the errors of sync.
        """
        self._library.require_open()
        items = self._items.live if spans is None else self._items.resolve(spans)
        return make_plan(self._assembly.plan(lay_out(items, self._family), answering=False))

    def generate(self, question: str | None = None, **options: Unpack[AnswerOptions]) -> Reply:
        """Answer over the window. The question and the reply become spans of it.

        question: added as a user text; None answers the window as it is.
        options: max_tokens (256 by default), stop, temperature, top_p, top_k and seed; greedy by default.
        Raises InputError, SettingError and WindowTooLongError before any work.
        """
        return self.stream(question, **options).finish()

    def stream(
        self,
        question: str | None = None,
        *,
        constraint: Constraint | None = None,
        **options: Unpack[AnswerOptions],
    ) -> ReplyStream:
        """Like generate, but returns the text piece by piece, as it comes. The work begins with the first piece.

        constraint: limits the tokens of the reply.
        """
        self._library.require_open()
        sampling, stop, max_tokens = read_terms(options)
        sampler = Sampler(sampling, self._family.placeholder_ids, constraint)
        replies: list[Reply] = []
        pieces = self._stream(question, max_tokens, sampler, Streamer(self._family, stop), replies)
        return ReplyStream(pieces, replies)

    @_alone
    def logits(self, question: str | None = None) -> torch.Tensor:
        """Next-token logits [vocab], float32, over the window and the question. The spans are unchanged."""
        self._library.require_open()
        items = [*self._items.live, *self._ask(question)]
        assembled = self._assembly.run(lay_out(items, self._family, "answer"))
        self._assembly.settle(keep=len(lay_out(self._items.live, self._family)))
        self._wake()
        return assembled.logits

    @_alone
    def reference_logits(self, question: str | None = None) -> torch.Tensor:
        """The same logits by one plain Hugging Face forward pass over all pixels and tokens: the yardstick."""
        self._library.require_open()
        items = [*self._items.live, *self._ask(question)]
        return self._engine.reference_logits([item.run for item in lay_out(items, self._family, "answer")])

    @_alone
    def full_prefill(self) -> Callable[[Callable[[], None]], torch.Tensor]:
        """A function that computes logits() of the window as it is now anew, at any time, in a pool of its own.

        It takes a function that is called once per run and per layer; what that raises ends the computation.
        """
        runs = [item.run for item in lay_out(self._items.live, self._family, "answer")]
        return partial(self._engine.full_prefill, runs)

    @property
    def exact_only(self) -> bool:
        """Whether answers use only KV that a full prefill would give, as with fidelity="exact". May be set."""
        return self._assembly.exact_only

    @exact_only.setter
    def exact_only(self, value: bool) -> None:
        self._assembly.exact_only = value

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans in order: the anchor, the markup of turns, texts, replies, images, frames and documents."""
        residents = {resident.item.id: resident for resident in self._assembly.residents}
        spans, position = [], 0
        for item in lay_out(self._items.live, self._family):
            spans.append(make_span(item, position, residents.get(item.id)))
            position += item.run.extent
        return tuple(spans)

    def show(self) -> None:
        """Display what the model sees: pictures, texts and the markup of the chat format, in order.

        In a notebook as HTML; elsewhere as text on stdout, with the size of a picture in its place.
        """
        tokens, spans = self._family.tokens, self.spans
        texts = [tokens.decode(item.run.token_ids, markup=True) for item in lay_out(self._items.live, self._family)]
        display(transcript(spans, texts))

    def _repr_html_(self) -> str:
        return window_html(self.spans)

    def pixels(self, span_id: str) -> Pixels:
        """Pixels of an image [H, W, 3] or of frames [F, H, W, 3] in the window, uint8 RGB.

        Raises UnknownSpanError for any other span.
        """
        return self._items.pixels(span_id)

    @property
    def pool_bytes(self) -> int:
        """Bytes of the KV pool. May be read from any thread."""
        return self._assembly.num_bytes

    @property
    def dropped_bytes(self) -> int:
        """Bytes kept of dropped spans for recall. May be read from any thread."""
        return self._items.dropped_bytes

    def check_integrity(self) -> None:
        """Assert that every slot of the pool has exactly one owner."""
        with self._lock_of_slice:
            self._assembly.check_integrity()

    @_alone
    def _add(self, content: Content) -> str:
        item = self._items.make(content)
        self._items.enter(item)
        return item.id

    def _ask(self, question: str | None) -> list[Item]:
        return [] if question is None else [self._items.make(TextContent(question))]

    def _targets(self, live: Sequence[Item], expected: Sequence[Item] | None) -> list[tuple[list[Item], bool]]:
        """What is to be healed, nearest first, and whether that goes beyond the unchanged beginning of the window."""
        match self._settings.heal:
            case "never":
                return []
            case "idle":
                return [(lay_out(live, self._family), False)]
            case "ahead" if expected is None:
                return [(lay_out(live, self._family), True)]
            case "ahead":
                return [(lay_out(expected, self._family), True), (lay_out(live, self._family), False)]

    def _wake(self) -> None:
        if self._settings.heal != "never":
            self._healer.wake(self)

    def _take(self, hold: ref[_Hold]) -> None:
        with self._lock:
            # A weak reference: a holder that was interrupted in its last line is gone all the same.
            if self._hold and self._hold():
                raise WindowError("The window is busy with an answer; exhaust or close the stream first.")
            self._hold = hold
        self._engine.answers.add(hold)
        # A slice of healing that runs gives way now.
        with self._lock_of_slice:
            pass

    def _stream(
        self, question: str | None, max_tokens: int, sampler: Sampler, streamer: Streamer, replies: list[Reply]
    ) -> Generator[str, None, None]:
        """The pieces of an answer; at the end, puts the reply into `replies`.

        It must not know the ReplyStream: a stream that its reader forgot would block the window until the garbage
        collector runs.
        """
        hold = ref(holder := _Hold())
        try:
            self._take(hold)
            self._library.require_open()
            start = perf_counter()
            asked = self._ask(question)
            reply_id = self._items.next_id("reply", len(asked) + 1)
            items = lay_out([*self._items.live, *asked], self._family, reply_id)
            assembled = self._assembly.run(items)
            token = sampler.draw(assembled.logits)
            first = perf_counter()
            try:
                most = min(max_tokens, self._assembly.room(items))
                token = yield from self._decode(token, sampler, streamer, most)
            except GeneratorExit:
                # The reader closed the stream. That is no failure: the question and the generated text stay. At the end
                # of the program Python closes it, and torch is gone.
                if not sys.is_finalizing():
                    self._settle(asked, reply_id, assembled)
                raise
            decoded = perf_counter()
            # Counted before this turn's chunks are handed over, so that they count in the next turn, done or not.
            bytes_written = self._assembly.count_written()
            span_id = self._settle(asked, reply_id, assembled)
            times = (first - start, decoded - first, perf_counter() - decoded)
            reply = Reply(
                text=streamer.text,
                span_id=span_id,
                finish_reason="stop" if token in self._family.chat.stop_ids or streamer.stopped else "length",
                usage=make_usage(assembled, len(streamer.token_ids), bytes_written),
                timings=make_timings(assembled, *(1e3 * seconds for seconds in times)),
                plan=make_plan(assembled.steps),
            )
            replies.append(reply)
        finally:
            # As in _alone.
            if self._hold is hold:
                self._hold = None
            self._engine.answers.discard(hold)
            del holder

    def _decode(self, token: int, sampler: Sampler, streamer: Streamer, max_tokens: int) -> Generator[str, None, int]:
        """Feed token after token, yield their text, and return the token that was drawn but not fed."""
        while token not in self._family.chat.stop_ids and len(streamer.token_ids) < max_tokens:
            if text := streamer.push(token):
                yield text
            logits = self._assembly.extend(token)
            if streamer.stopped:
                break
            token = sampler.draw(logits)
        if text := streamer.flush():
            yield text
        return token

    def _settle(self, asked: Sequence[Item], reply_id: str, assembled: Assembled) -> str | None:
        """Enter the question and the generated reply; returns the reply's id, None for an empty reply."""
        run = self._assembly.finish(reply_id)
        reply = [self._items.make_reply(reply_id, run, self._family.tokens.decode(run.token_ids))] if run else []
        self._items.enter(*asked, *reply)
        self._assembly.settle()
        self._expected = None
        self._wake()
        return reply_id if run else None
