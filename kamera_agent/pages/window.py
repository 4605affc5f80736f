"""A window whose KV is in the pages of an engine: planned here, computed there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from secrets import token_hex

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import SettingOptions, Settings, make_settings
from kamera_agent.errors import InputError, SettingError, UnsupportedModelError, WindowTooLongError
from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.pages.span import Load, Save, row_of
from kamera_agent.runtime.families.base import Family
from kamera_agent.store.base import Store
from kamera_agent.window.content import Content
from kamera_agent.window.evidence import Evidence
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Layout, Place
from kamera_agent.window.plan import Plan
from kamera_agent.window.planner import Planner, Regime
from kamera_agent.window.records import Records
from kamera_agent.window.step import Step, make_plan


def engine_settings(options: SettingOptions, owner: str) -> Settings:
    """The settings of these options, for an engine. Raises SettingError for what an engine cannot do.

    stale is "keep" unless it is given: an engine computes a span whole or not at all, so nothing is refreshed.
    """
    settings = make_settings({"stale": "keep", **options}, owner)
    if settings.stale == "refresh":
        raise SettingError("stale is 'refresh', but an engine computes spans whole: use 'keep' or 'compute'.")
    if settings.near != "off":
        raise SettingError(f"near is {settings.near!r}, but an engine computes spans whole: use 'off'.")
    if settings.base == "canonical":
        raise SettingError("base is 'canonical', but an engine computes chunks in their windows only: use 'first'.")
    return settings


@dataclass(frozen=True, slots=True)
class Part:
    """A request to the engine: the beginning of a window.

    An engine takes KV for one row of tokens only, after those that its own cache has. So a window whose recalled spans
    are in several places is computed in several requests, each longer than the one before; the last is the window.

    token_ids: all tokens of the beginning. images: pixels of its images, in order, with their chunks.
    loads: spans in a row, which end before the tokens that the request computes. saves: spans that it computes.
    """

    token_ids: tuple[int, ...]
    images: tuple[Chunk, ...]
    loads: tuple[Load, ...]
    saves: tuple[Save, ...]

    @property
    def claim(self) -> range:
        """The tokens that get their KV from the store; empty for none."""
        return row_of(self.loads)


@dataclass(frozen=True, slots=True)
class Request:
    """A window, planned. salt: keeps its pages apart from those of other conversations; None: they may be shared."""

    steps: tuple[Step, ...]
    parts: tuple[Part, ...]
    salt: str | None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens of the window."""
        return self.parts[-1].token_ids

    @property
    def plan(self) -> Plan:
        """The printable form of its steps."""
        return make_plan(self.steps)


class PagedWindow:
    """The items of a conversation, and where the KV of each comes from.

    Every method that raises leaves it as it was.
    """

    def __init__(self, blueprint: Blueprint, store: Store, settings: Settings, system: str | None = None) -> None:
        family = blueprint.family
        prompt = family.chat.default_system if system is None else system
        self._family = family
        self._records = Records(store, settings, blueprint.rotation.num_layers, family.decoder.device)
        self._planner = Planner(settings, self._records, family.computed_whole, _nothing_changed, Regime(), frozenset())
        self._items = Items(family, settings, prompt)
        self._layout = Layout(family)
        # By the chain after it, KV that the engine's own cache may have of a span though a full prefill would differ.
        self._inexact: dict[bytes, Evidence] = {}
        self._salt: str | None = None

    def sync(self, spans: Iterable[Content | str], system: str | None = None) -> tuple[str, ...]:
        """Make the window hold exactly this content; see Window.sync(). Returns the span ids.

        Raises as Window.sync() does, and InputError for frames and for images whose tokens see later ones.
        """
        items = self._items.resolve(spans, system)
        for item in items:
            self._check(item.run)
        self._items.replace(items)
        return tuple(item.id for item in items[1:])

    def request(self, question: str | None = None) -> Request:
        """Plan the window and a question, up to where the reply begins. Raises WindowTooLongError."""
        places = self._layout.places([*self._items.live, *self._items.ask(question)], "reply")
        self._check_length(places)
        steps = self._planner.steps(places, (), (), answering=True)
        planned = tuple(step for step in steps if isinstance(step, Step))
        self._season(planned)
        return Request(planned, _parts(self._family, planned), self._salt)

    def enter(self, question: str | None, reply_ids: Sequence[int], text: str) -> None:
        """Make a question and the tokens of its reply spans of the window."""
        asked = self._items.ask(question)
        reply_id = self._items.next_id("reply", len(asked) + 1)
        self._items.enter(*asked, self._items.make_reply(reply_id, TextRun(tuple(reply_ids)), text))

    def num_unsaved(self, request: Request) -> int:
        """Spans of a request that the store does not have yet. The engine writes while nobody waits."""
        saves = [save for part in request.parts for save in part.saves]
        return sum(not self._records.has(save.key, save.seen) for save in saves)

    def _season(self, steps: Sequence[Step]) -> None:
        """Take a new salt where pages of the present one may hold other KV than these steps say.

        Pages are found by the tokens before them, as chains are, whatever their KV came from.
        """
        ends = {step.place.before.then(step.place.item.run).chain: step for step in steps}
        inexact = {end: step.evidence for end, step in ends.items() if step.evidence and not step.exact}
        conflict = any(self._inexact[end] != inexact.get(end) for end in ends if end in self._inexact)
        if conflict or (inexact and self._salt is None):
            self._salt = token_hex(16)
        self._inexact = inexact if conflict else {**self._inexact, **inexact}

    def _check(self, run: Chunk | TextRun) -> None:
        if not isinstance(run, Chunk):
            return
        if run.kind == "frames":
            raise InputError("Frames cannot be put into the window of an engine yet; use ImageContent for each frame.")
        if self._family.both_ways(run) is not None:
            raise UnsupportedModelError(
                f"Tokens of an image see later ones in {type(self._family.model).__name__}, and an engine may cut it "
                "anywhere. Use Kamera."
            )

    def _check_length(self, places: Sequence[Place]) -> None:
        limit, num_tokens = self._family.decoder.max_positions, places[-1].end_order
        if num_tokens > limit:
            raise WindowTooLongError(
                f"The window would hold {num_tokens} tokens; the model was built for {limit}. Drop spans."
            )


def _parts(family: Family, steps: Sequence[Step]) -> tuple[Part, ...]:
    """The requests of a window: it is cut before each row of recalled spans.

    steps    text  A recalled  B recalled  text  C recalled  text
    parts    [  )
             [     loads A, B              )
             [                                   loads C     )
    """
    rows = [step.place.order for step, last in zip(steps[1:], steps, strict=False) if _recalls(step) > _recalls(last)]
    ends = [*rows, steps[-1].place.end_order]
    token_ids = tuple(token for step in steps for token in step.place.item.run.token_ids)
    spans = [(step, run) for step in steps if isinstance(run := step.place.item.run, Chunk)]
    parts = []
    for start, end in pairwise([0, *ends]):
        images = tuple(run for step, run in spans if run.has_pixels and step.place.order < end)
        loads, saves = list[Load](), list[Save]()
        for step, run in spans:
            first, positions = step.place.order, family.positions(run, step.place.position)
            if not start <= first < end:
                continue
            if step.evidence:
                loads.append(Load(first, positions, step.evidence))
            else:
                saves.append(Save(first, positions, run.key, step.seen))
        parts.append(Part(token_ids[:end], images, tuple(loads), tuple(saves)))
    return tuple(parts)


def _recalls(step: Step) -> bool:
    return step.evidence is not None


def _nothing_changed(one: Chunk, other: Chunk) -> None:
    """No image gives its tokens to another one."""
