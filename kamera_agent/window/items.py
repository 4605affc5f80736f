"""The items that a window holds, and those that were dropped from it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from reprlib import repr as short
from types import MappingProxyType
from typing import NamedTuple

from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import InputError, UnknownSpanError, WindowError
from kamera_agent.options import several, whole
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.image import Pixels, decode_image
from kamera_agent.vision.sampling import take_frames
from kamera_agent.window.content import Content, DocumentContent, FramesContent, ImageContent, TextContent
from kamera_agent.window.layout import Item
from kamera_agent.window.plan import Kind
from kamera_agent.window.unused import Unused

SURROGATE = re.compile("[\ud800-\udfff]")


class _Held(NamedTuple):
    """What a window holds: its items, the dropped ones by id, and the number of items that ever entered."""

    live: tuple[Item, ...] = ()
    dropped: Mapping[str, Item] = MappingProxyType({})
    num_entered: int = 0


class Items:
    """The items of one window, in order; the first is the system prompt.

    Dropped items are kept for recall, as many as fit the byte bound. Every method checks its arguments before it
    changes anything. An item has an id from the start; the id is used up only when the item enters the window.
    """

    def __init__(self, family: Family, settings: Settings, system: str) -> None:
        self._family = family
        self._settings = settings
        # Replaced as a whole, never changed: an interrupt leaves the old or the new one, and other threads read it.
        self._held = _Held()
        self.enter(self._system(system, 1))

    @property
    def namespace(self) -> str:
        """The namespace of the chunks."""
        return self._settings.namespace

    @property
    def live(self) -> tuple[Item, ...]:
        """Items in the window, the system prompt first."""
        return self._held.live

    @property
    def dropped_bytes(self) -> int:
        """Bytes kept for dropped items. May be read from any thread."""
        return _num_bytes(self._held.dropped)

    def make(self, content: Content) -> Item:
        """Tokenise or fingerprint a content. The item does not enter the window.

        Raises ImageError, VideoError, InputError (an empty text) or SettingError (rank above the chunk's size).
        """
        return self._new(content, self._run(content), 1)

    def ask(self, question: str | None) -> list[Item]:
        """A question as an item of the user; none for None. It does not enter the window. Raises as make does."""
        return [] if question is None else [self.make(TextContent(question))]

    def make_reply(self, item_id: str, run: TextRun, text: str) -> Item:
        """The item of a reply, under an id from next_id. It does not enter the window."""
        return Item(item_id, "reply", "assistant", run, text, new_turn=True)

    def pixels(self, item_id: str) -> Pixels:
        """Pixels of a chunk in the window. Raises UnknownSpanError."""
        run = self.live[self._index(item_id)].run
        if not isinstance(run, Chunk) or not run.has_pixels:
            raise UnknownSpanError(f"{item_id!r} is a text; only image and frames spans have pixels.")
        return run.pixels

    def next_id(self, kind: Kind, ahead: int) -> str:
        """The id of the item that enters as the ahead-th from now, counted from 1."""
        return f"{kind}{self._held.num_entered + ahead}"

    def enter(self, *items: Item) -> None:
        """Enter new items at the end."""
        held = self._held
        self._held = held._replace(live=(*held.live, *items), num_entered=held.num_entered + len(items))

    def drop(self, item_id: str) -> None:
        """Take an item out. Raises UnknownSpanError."""
        gone = self.live[self._index(item_id)]
        self._held = self._without([gone])

    def recall(self, item_id: str, at: str | None) -> None:
        """Bring a dropped item back before the item `at`, or at the end. Raises UnknownSpanError."""
        live, dropped, _ = self._held
        if item_id not in list(dropped):
            raise UnknownSpanError(
                f"{short(item_id)} is not among the dropped spans {list(dropped)}; recall takes a span that was "
                "dropped and is still kept. Add the content again."
            )
        index = len(live) if at is None else self._index(at)
        self._held = self._held._replace(
            live=(*live[:index], dropped[item_id], *live[index:]),
            dropped={other: item for other, item in dropped.items() if other != item_id},
        )

    def reorder(self, item_ids: Sequence[str]) -> None:
        """Put the chunks in this order, into the places of chunks. Raises UnknownSpanError, InputError for no list."""
        item_ids = several("span_ids", item_ids)
        chunks = {item.id: item for item in self.live if isinstance(item.run, Chunk)}
        unknown = [item_id for item_id in item_ids if item_id not in list(chunks)]
        missing = [item_id for item_id in chunks if item_id not in item_ids]
        if unknown or missing or len(item_ids) != len(chunks):
            raise UnknownSpanError(
                f"reorder takes every image, frames and document span of the window once: unknown {unknown}, missing "
                f"{missing}, given {item_ids}."
            )
        order = iter(item_ids)
        live = tuple(chunks[next(order)] if item.id in chunks else item for item in self.live)
        self._held = self._held._replace(live=live)

    def slide(self, keep_last: int) -> None:
        """Drop all but the newest chunks; texts stay. Raises WindowError for a negative number."""
        keep_last = whole("keep_last", keep_last)
        if keep_last < 0:
            raise WindowError(f"keep_last is {keep_last}; use 0 or more.")
        chunks = [item for item in self.live if isinstance(item.run, Chunk)]
        self._held = self._without(chunks[: max(len(chunks) - keep_last, 0)])

    def resolve(self, contents: Iterable[Content | str], system: str | None = None) -> list[Item]:
        """The items for a new list of contents, after the system prompt; None leaves that as it is.

        An id names an item that is in the window or was dropped. A content equal to such an item becomes it.

        Raises as make does, and UnknownSpanError.
        """
        contents = several("spans", contents)
        system = None if system is None else readable(system)
        unused = Unused((*self.live[1:], *self._held.dropped.values()))
        resolved: list[Item] = []
        num_new = 0
        for content in contents:
            item = unused.named(content) if isinstance(content, str) else self._equal(content, unused, num_new + 1)
            num_new += not unused.take(item)
            resolved.append(item)
        first = self.live[0]
        return [first if system in (None, first.text) else self._system(system or "", num_new + 1), *resolved]

    def replace(self, items: Sequence[Item]) -> None:
        """Make a resolved list the window's items; every item that it leaves out counts as dropped."""
        ids, old_ids = {item.id for item in items}, {item.id for item in self.live}
        left = self._without([item for item in self.live if item.id not in ids], returned=ids)
        num_new = len(ids - old_ids - self._held.dropped.keys())
        self._held = left._replace(live=tuple(items), num_entered=left.num_entered + num_new)

    def _system(self, text: str, ahead: int) -> Item:
        content = TextContent(text, "system")
        return self._new(content, self._run(content) if text else TextRun(()), ahead)

    def _equal(self, content: Content, unused: Unused, ahead: int) -> Item:
        """The item that a content equals, or a new one."""
        if isinstance(content, (TextContent, DocumentContent)):
            self._family.chat.format.check_role(content.role)
            text = readable(content.text)
            known = unused.first(content.role, text, lambda item: self._holds(item, content))
            return known or self._new(content, self._run(content), ahead)
        run = self._run(content)
        known = unused.first(content.role, run.digest, lambda item: item.new_turn == content.new_turn)
        return known or self._new(content, run, ahead)

    def _holds(self, item: Item, content: TextContent | DocumentContent) -> bool:
        """Whether an item of the same words may be a text."""
        if item.kind == "reply":
            # It begins a turn, whether or not the caller's list says so. The store does not hold its KV, so a long one
            # that has left comes back as a document.
            return isinstance(content, TextContent) or item in self.live
        kind = "text" if isinstance(content, TextContent) else "document"
        return (item.kind, item.new_turn) == (kind, content.new_turn)

    def _run(self, content: Content) -> Run:
        if isinstance(content, Content):
            self._family.chat.format.check_role(content.role)
        if isinstance(content, TextContent):
            # A message without words is a turn without words.
            return TextRun(()) if content.new_turn and not content.text else self._text_run(content.text)
        if isinstance(content, ImageContent):
            chunk = self._family.image_chunk(decode_image(content.image), self.namespace)
        elif isinstance(content, FramesContent):
            frames = take_frames(content.frames, content.timestamps, content.fps)
            chunk = self._family.frames_chunk(frames, self.namespace)
        elif isinstance(content, DocumentContent):
            chunk = self._family.document_chunk(readable(content.text), self.namespace)
        else:
            raise InputError(
                f"Cannot put a {type(content).__name__} into a window; use TextContent, ImageContent, FramesContent or "
                "DocumentContent."
            )
        self._settings.check_rank(len(chunk.token_ids))
        return chunk

    def _new(self, content: Content, run: Run, ahead: int) -> Item:
        kind: Kind = run.kind if isinstance(run, Chunk) else "text"
        text = readable(content.text) if isinstance(content, (TextContent, DocumentContent)) else ""
        return Item(self.next_id(kind, ahead), kind, content.role, run, text, content.new_turn)

    def _text_run(self, text: str) -> TextRun:
        if not (token_ids := self._family.tokens.encode(readable(text))):
            raise InputError(f"The text {text!r} has no tokens; leave it out.")
        return TextRun(token_ids)

    def _index(self, item_id: str) -> int:
        for index, item in enumerate(self.live[1:], start=1):
            if item.id == item_id:
                return index
        raise UnknownSpanError(
            f"{short(item_id)} is not in the window; it holds {[item.id for item in self.live[1:]]}."
        )

    def _without(self, gone: Sequence[Item], returned: Collection[str] = ()) -> _Held:
        """What the window holds once these items are dropped; beyond the byte bound, the oldest dropped ones go.

        returned: ids of dropped items that are going to be live.
        """
        kept = {item_id: item for item_id, item in self._held.dropped.items() if item_id not in returned}
        kept |= {item.id: item for item in gone}
        left = set(gone)
        num_bytes = _num_bytes(kept)
        for item_id in list(kept):
            if num_bytes <= self._settings.dropped_bytes:
                break
            num_bytes -= kept.pop(item_id).num_bytes
        return self._held._replace(live=tuple(item for item in self.live if item not in left), dropped=kept)


def _num_bytes(items: Mapping[str, Item]) -> int:
    return sum(item.num_bytes for item in items.values())


def readable(text: str) -> str:
    """A text with a replacement character for what no tokenizer takes. Raises InputError for another type."""
    if not isinstance(text, str):
        raise InputError(f"A text is a str; got a {type(text).__name__}.")
    if not SURROGATE.search(text):
        return text
    # Half an emoji, cut from a page or a log: no tokenizer takes it. Two halves in a row are one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
