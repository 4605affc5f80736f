"""The window: the ordered spans that an answer is computed over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Unpack
from weakref import ref

import torch

from kamera_agent.config import Demand, Settings
from kamera_agent.errors import InputError
from kamera_agent.runtime.engine import Engine
from kamera_agent.vision.image import Pixels
from kamera_agent.window.answer import Answer
from kamera_agent.window.assembly import Assembly
from kamera_agent.window.constraint import Constraint
from kamera_agent.window.content import Content, DocumentContent, FramesContent, ImageContent, TextContent
from kamera_agent.window.door import Door, Hold, alone
from kamera_agent.window.healer import Healer
from kamera_agent.window.idle import Idle
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Layout, Place
from kamera_agent.window.library import Library
from kamera_agent.window.notebook import display, transcript, window_html
from kamera_agent.window.options import AnswerOptions, read_terms
from kamera_agent.window.plan import Plan
from kamera_agent.window.reply import Reply, ReplyStream
from kamera_agent.window.residence import Residence
from kamera_agent.window.sampler import Sampler
from kamera_agent.window.span import Span, make_span
from kamera_agent.window.step import make_plan
from kamera_agent.window.streamer import Streamer


class Window:
    """Holds spans and answers over them. Kamera.window() makes one.

    Editing is free: the next answer does the work for all edits at once. A method that raises leaves the window as it
    was. A window is not safe to use from several threads at once; several windows of one Kamera are.

    Once the Kamera is closed, every method that plans or computes raises StoreClosedError. A stream that has begun goes
    on to its end.

    idle: what is done for it while no answer is wanted.
    """

    def __init__(self, engine: Engine, library: Library, healer: Healer, settings: Settings, system: str) -> None:
        self._engine = engine
        self._library = library
        self._family = engine.family
        self._items = Items(engine.family, settings, system)
        self._layout = Layout(engine.family)
        self._assembly = Assembly(engine, library, settings)
        self._door = Door(engine)
        self.idle = Idle(self._items, self._layout, self._assembly, settings, healer, self._door)

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

    @alone
    def drop(self, span_id: str) -> None:
        """Take a span out of the window. It can be recalled. Raises UnknownSpanError."""
        self._items.drop(span_id)

    @alone
    def recall(self, span_id: str, at: str | None = None) -> None:
        """Bring a dropped span back, before the span `at` or at the end. Raises UnknownSpanError."""
        self._items.recall(span_id, at)

    @alone
    def reorder(self, span_ids: Sequence[str]) -> None:
        """Put the image, frames and document spans into this order; texts keep their places.

        Raises UnknownSpanError unless span_ids names each of them exactly once, and InputError for no list.
        """
        self._items.reorder(span_ids)

    @alone
    def slide(self, keep_last: int) -> None:
        """Drop all but the last keep_last chunks; texts stay. Raises WindowError for a negative number."""
        self._items.slide(keep_last)

    @alone
    def sync(self, spans: Iterable[Content | str], system: str | None = None) -> tuple[str, ...]:
        """Make the window hold exactly this content, in this order; returns the span ids.

        spans: contents, or ids of spans that are in the window or were dropped. A content that equals such a span
            becomes that span, so an edited message list keeps everything that was not edited.
        system: a new system prompt; None leaves it as it is.
        Raises UnknownSpanError, WindowTooLongError, and the errors of the add methods.
        """
        items = self._items.resolve(spans, system)
        self._assembly.check_length(self._layout.places(items))
        self._items.replace(items)
        return tuple(item.id for item in items[1:])

    @alone
    def expect(self, spans: Iterable[Content | str] | None, system: str | None = None) -> None:
        """Say what the window will hold before its next new content comes, for heal="ahead".

        The spans are then computed in that order while no answer is wanted, so that the next answer finds them. Holds
        until the end of the next answer. Who keeps the last three screenshots knows which of them goes:

            window.expect([span_id for span_id in span_ids if span_id != oldest])

        spans, system: as for sync; None forgets what was expected. Raises the errors of sync.
        """
        self.idle.expect(None if spans is None else self._items.resolve(spans, system))

    @alone
    def adopt(self, source: Window) -> None:
        """Copy the KV of the beginning that another window of the same Kamera has in common with this one.

        What this window has computed by now is computed again. Raises WindowError while either is busy, and InputError
        for another object and for a window of another namespace.
        """
        if not isinstance(source, Window):
            raise InputError(f"Only the KV of a Window can be adopted; got a {type(source).__name__}.")
        if source._items.namespace != self._items.namespace:
            raise InputError(
                f"A window of namespace {self._items.namespace!r} cannot adopt KV of namespace "
                f"{source._items.namespace!r}; nothing is shared between namespaces."
            )
        source._lend(self._assembly.residence, self._layout.places(self._items.live))

    @alone
    def _lend(self, borrower: Residence, places: Sequence[Place]) -> None:
        borrower.adopt(self._assembly.residence, places)

    @alone
    def plan(self, spans: Iterable[Content | str] | None = None) -> Plan:
        """What the next answer, or the next answer after sync(spans), keeps, moves, recalls and computes.

        Changes nothing. Raises the errors of sync.
        """
        self._library.require_open()
        items = self._items.live if spans is None else self._items.resolve(spans)
        return make_plan(self._assembly.plan(self._layout.places(items), answering=False))

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
        answer = Answer(self._items, self._layout, self._assembly, self._family, sampler, Streamer(self._family, stop))
        replies: list[Reply] = []
        return ReplyStream(self._stream(question, max_tokens, answer, replies), replies)

    @alone
    def logits(self, question: str | None = None) -> torch.Tensor:
        """Next-token logits [vocab], float32, over the window and the question. The spans are unchanged."""
        self._library.require_open()
        items = [*self._items.live, *self._items.ask(question)]
        assembled = self._assembly.run(self._layout.places(items, "answer"))
        self._assembly.settle(keep=len(self._layout.places(self._items.live)))
        self.idle.wake()
        return assembled.logits

    @alone
    def reference_logits(self, question: str | None = None) -> torch.Tensor:
        """The same logits by one plain Hugging Face forward pass over all pixels and tokens: the yardstick."""
        self._library.require_open()
        items = [*self._items.live, *self._items.ask(question)]
        return self._engine.reference_logits([place.item.run for place in self._layout.places(items, "answer")])

    @alone
    def full_prefill(self) -> Callable[[Callable[[], None]], torch.Tensor]:
        """A function that computes logits() of the window as it is now anew, at any time, in a pool of its own.

        It takes a function that is called once per run and per layer; what that raises ends the computation.
        """
        runs = [place.item.run for place in self._layout.places(self._items.live, "answer")]
        return partial(self._engine.full_prefill, runs)

    @property
    def exact_only(self) -> bool:
        """Whether answers use only KV that a full prefill would give, as with fidelity="exact". May be set."""
        return self._assembly.exact_only

    @exact_only.setter
    def exact_only(self, value: bool) -> None:
        self._assembly.exact_only = value

    @property
    def demand(self) -> Demand | None:
        """What answers ask for: "exact" KV, or that stale chunks are "refresh"ed or "keep" their KV. May be set.

        None leaves it to the settings. Neither of the others makes an answer less exact than fidelity="exact" does.
        """
        return self._assembly.demand

    @demand.setter
    def demand(self, value: Demand | None) -> None:
        self._assembly.demand = value

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans in order: the anchor, the markup of turns, texts, replies, images, frames and documents."""
        residents = {resident.place.item.id: resident for resident in self._assembly.residence.shown}
        places = self._layout.places(self._items.live)
        return tuple(make_span(place, residents.get(place.item.id)) for place in places)

    def show(self) -> None:
        """Display what the model sees: pictures, texts and the markup of the chat format, in order.

        In a notebook as HTML; elsewhere as text on stdout, with the size of a picture in its place.
        """
        tokens, spans = self._family.tokens, self.spans
        runs = [place.item.run for place in self._layout.places(self._items.live)]
        texts = [tokens.decode(run.token_ids, markup=True) for run in runs]
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
        return self._assembly.residence.num_bytes

    @property
    def dropped_bytes(self) -> int:
        """Bytes kept of dropped spans for recall. May be read from any thread."""
        return self._items.dropped_bytes

    def check_integrity(self) -> None:
        """Assert that every slot of the pool has exactly one owner."""
        with self._door.slice:
            self._assembly.residence.check_integrity()

    @alone
    def _add(self, content: Content) -> str:
        item = self._items.make(content)
        self._items.enter(item)
        return item.id

    def _stream(
        self, question: str | None, max_tokens: int, answer: Answer, replies: list[Reply]
    ) -> Generator[str, None, None]:
        """The pieces of an answer; at the end, puts the reply into `replies`.

        It must not know the ReplyStream: a stream that its reader forgot would block the window until the garbage
        collector runs.
        """
        hold = ref(holder := Hold())
        try:
            self._door.take(hold)
            self._library.require_open()
            replies.append((yield from answer.pieces(question, max_tokens, partial(self.idle.expect, None))))
        finally:
            # As in alone().
            if self._door.hold is hold:
                self._door.hold = None
            self._engine.answers.discard(hold)
            del holder
