"""The live windows of conversations, bounded in number and bytes. The least recently used window goes first."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import sleep
from typing import NamedTuple
from weakref import ref

from kamera_agent.config import Demand
from kamera_agent.kamera import Kamera
from kamera_agent.telemetry.guard import Guard
from kamera_agent.turns.background import Cancelled, never
from kamera_agent.turns.forecast import Forecast
from kamera_agent.turns.outline import Outline, Part
from kamera_agent.turns.pixels import check_pixels
from kamera_agent.turns.watch import Budget, Watch
from kamera_agent.window.content import Content, ImageContent
from kamera_agent.window.reply import Reply
from kamera_agent.window.window import Window

logger = logging.getLogger("kamera_agent.conversations")

# Windows of one conversation. They are few, because a window of a long history takes much memory.
MAX_WINDOWS = 4
# The share of its history that a call has in common with a window that it can reuse.
KNOWN = 0.5
# How often a caller that waits for a window looks again.
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    conversation: its id. agent: which of those that share the conversation; empty for the only one.
    namespace: of its chunks, and of the conversation's id; None for that of the Kamera's settings.
    """

    conversation: str = ""
    agent: str = ""
    namespace: str | None = None

    @property
    def place(self) -> tuple[str | None, str]:
        """The conversation, apart from those with the same id in other namespaces."""
        return self.namespace, self.conversation


class _Hold:
    """Exists while somebody holds a window."""


@dataclass(slots=True, eq=False)
class Live:
    """A live window of a caller, and the outline of the last call over it.

    watch: of its conversation; None without a guard.
    images: what each image of that call is and whether it begins a turn, with its span id, in order.
    num_calls: answers begun over it.
    forecast: of the next call over it.
    num_strangers: windows of the conversation, where the present call has a history that none of them holds; else 0.
    source: a window to take the KV of the common beginning from, before the first answer; held together with this one.
    """

    caller: Caller
    window: Window
    watch: Watch | None = None
    outline: Outline = field(default_factory=Outline)
    images: tuple[tuple[tuple[Part, bool], str], ...] = ()
    num_calls: int = 0
    forecast: Forecast = field(default_factory=Forecast)
    num_strangers: int = 0
    source: Live | None = None
    # A weak reference: a holder that Ctrl-C interrupts, wherever it is, holds the window no longer.
    _holder: ref[_Hold] | None = None

    @property
    def is_held(self) -> bool:
        """Whether an answer is being computed over the window."""
        return self._holder is not None and self._holder() is not None

    @property
    def num_bytes(self) -> int:
        """Bytes of its pool, and of what it keeps for recall."""
        return self.window.pool_bytes + self.window.dropped_bytes

    def take(self, hold: _Hold | None) -> None:
        """Hold the window while `hold` exists; None lets it go."""
        self._holder = None if hold is None else ref(hold)

    def begin(self, contents: Sequence[Content], system: str, call: Outline, demand: Demand | None = None) -> None:
        """Make the window hold the contents of a call. demand: of its answer.

        Raises what Window.sync raises, and InputError for images that are not in the window and too large together.
        """
        known = self._known(contents, call)
        check_pixels(known)
        span_ids = self.window.sync(known, system)
        self.outline = call
        self.images = tuple(
            ((part, content.new_turn), span_id)
            for content, part, span_id in zip(contents, call.parts[1:], span_ids, strict=True)
            if isinstance(content, ImageContent)
        )
        self.window.exact_only = self.watch is not None and self.watch.has_fallen_back
        self.window.demand = demand
        if self.source:
            self.window.adopt(self.source.window)
            self.source.take(None)
            self.source = None

    def expect(self, contents: Sequence[Content], system: str, call: Outline) -> None:
        """Have the window expect the contents of the call that will probably come next."""
        self.window.expect(self._known(contents, call), system)

    def _known(self, contents: Sequence[Content], call: Outline) -> list[Content | str]:
        """The contents of a call, with ids in the place of images that are in the window: they need not be decoded."""
        left: dict[tuple[Part, bool], deque[str]] = defaultdict(deque)
        for image, span_id in self.images:
            left[image].append(span_id)
        known: list[Content | str] = []
        for content, part in zip(contents, call.parts[1:], strict=True):
            same = left.get((part, content.new_turn)) if isinstance(content, ImageContent) else None
            known.append(same.popleft() if same else content)
        return known

    def end(self, reply: Reply) -> None:
        """Note the reply to the call, and log where nothing could be reused for it."""
        self.outline = self.outline.replied(reply.text)
        if self.watch:
            self.watch.answered(reply, exact_only=self.window.exact_only)
        if self.num_strangers:
            computed = reply.plan.num_computed
            logger.warning(
                "Conversation %r: a call shares hardly anything with the %d live windows, so %d of %d tokens were "
                "computed. If several agents speak in this thread, name each by agent= or by its own thread_id.",
                self.caller.conversation,
                self.num_strangers,
                computed,
                reply.plan.num_tokens(),
            )


class Standing(NamedTuple):
    """A live window. num_images: of its last call. num_bytes: of its pool, and of what it keeps for recall."""

    conversation: str
    num_calls: int
    num_images: int
    num_bytes: int
    is_busy: bool


class Conversations:
    """Windows by conversation. When a window goes, its chunks stay in the store.

    A conversation has a window for each agent that speaks in it, and for each branch of its history. A call continues
    the window of its own agent that it goes on from. Without one, it gets a new window, with a copy of the KV of the
    longest beginning that any window of the namespace has in common with it.

    Safe for use from several threads: one answer at a time per window, several windows side by side.
    """

    def __init__(self, kamera: Kamera, max_conversations: int, max_bytes: int, guard: Guard | None = None) -> None:
        """max_bytes: bound of the windows' KV pools and of the dropped spans that they keep for recall."""
        self._kamera = kamera
        # Exact answers cannot drift.
        self._guard = None if kamera.settings.fidelity == "exact" else guard
        self._budget = Budget(guard.share if guard else 0.0)
        self._max_conversations, self._max_bytes = max_conversations, max_bytes
        # The least recently used first.
        self._live: list[Live] = []
        # Conversations whose lost reuse is in the log.
        self._reported: set[tuple[str | None, str]] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len({live.caller.place for live in self._live})

    def standing(self, namespace: str | None) -> list[Standing]:
        """How the windows of a namespace stand, the last used first."""
        with self._lock:
            live = [live for live in reversed(self._live) if live.caller.namespace == namespace]
        return [
            Standing(live.caller.conversation, live.num_calls, len(live.images), live.num_bytes, live.is_held)
            for live in live
        ]

    @contextmanager
    def hold(self, caller: Caller, call: Outline, cancelled: Cancelled = never) -> Iterator[Live]:
        """Hold the window that a call continues, or a new one. Others that want the same window wait.

        Raises GeneratorExit where the wait is cancelled.
        """
        hold = _Hold()
        while (live := self._take(caller, call, hold)) is None:
            if cancelled():
                raise GeneratorExit
            sleep(POLL_S)
        try:
            yield live
        finally:
            live.source = None
            live.take(None)
            with self._lock:
                self._evict()

    def _take(self, caller: Caller, call: Outline, hold: _Hold) -> Live | None:
        """The window that a call continues, held from now on; None while it is held otherwise."""
        with self._lock:
            family = [live for live in self._live if live.caller.place == caller.place]
            own = [live for live in family if live.caller == caller and live.outline.goes_on_in(call)]
            # The window that most of the call can be kept or moved in, although another may begin more like it: an old
            # screenshot that comes back to the front is the beginning of a window that was left long ago.
            live = max(reversed(own), key=lambda live: live.outline.size_held(call), default=None)
            if live is None:
                window = self._kamera.window(namespace=caller.namespace)
                live = Live(caller, window, family[0].watch if family else self._watch(caller))
                live.source = self._source(caller, family, call)
                if live.source:
                    live.source.take(hold)
            elif live.is_held:
                return None
            self._live = [*(other for other in self._live if other is not live), live]
            live.take(hold)
            live.num_calls += 1
            live.num_strangers = self._count_strangers(caller, call)
            return live

    def _source(self, caller: Caller, family: Sequence[Live], call: Outline) -> Live | None:
        """The window that has the longest beginning in common with a call, to copy its KV; None where none has any.

        It may be of another conversation: an agent that rewrites its first text at every step begins one each time. A
        window that is busy is not waited for: its KV changes, and the beginning is computed instead.
        """
        others = [live for live in self._live if live.caller.namespace == caller.namespace and live not in family]
        idle = [live for live in (*reversed(family), *reversed(others)) if not live.is_held]
        source = max(idle, key=lambda live: live.outline.num_shared(call), default=None)
        return source if source and source.outline.num_shared(call) else None

    def _watch(self, caller: Caller) -> Watch | None:
        return Watch(self._guard, self._budget, caller.conversation) if self._guard else None

    def _count_strangers(self, caller: Caller, call: Outline) -> int:
        """Windows of an agent, if none of them knows the history of its call; 0 after the first time."""
        own = [live for live in self._live if live.caller == caller and live.outline.parts]
        if not own or max(live.outline.known(call) for live in own) >= KNOWN:
            return 0
        if caller.place in self._reported:
            return 0
        self._reported.add(caller.place)
        return len(own)

    def _evict(self) -> None:
        # A window in use is never let go, even beyond the bounds; its own end comes by here again.
        while (gone := self._surplus()) is not None:
            self._live = [live for live in self._live if live is not gone]
        self._reported &= {live.caller.place for live in self._live}

    def _surplus(self) -> Live | None:
        """The window to let go next; None within the bounds."""
        newest = self._live[-1:]
        idle = [live for live in self._live if not live.is_held and live not in newest]
        num_windows = Counter(live.caller.place for live in self._live)
        crowded = [live for live in idle if num_windows[live.caller.place] > MAX_WINDOWS]
        if crowded:
            # First those that were never continued, such as those of a judge.
            return next((live for live in crowded if live.num_calls == 1), crowded[0])
        num_bytes = sum(live.num_bytes for live in self._live)
        beyond = len(self) > self._max_conversations or num_bytes > self._max_bytes
        return idle[0] if idle and beyond else None
