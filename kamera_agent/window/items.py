"""What a window holds and what was dropped from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import InputError, UnknownSpanError, WindowError
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.frames import stack_frames
from kamera_agent.vision.image import Pixels, decode_image
from kamera_agent.window.content import Content, DocumentContent, FramesContent, ImageContent, TextContent
from kamera_agent.window.layout import Item, Kind


class Items:
    """The items of one window, in order; the first is the system prompt.

    Dropped ones are kept for recall, as many as fit the byte bound.

    Every method checks its arguments before it changes anything.
    """

    def __init__(self, family: Family, settings: Settings, system: str) -> None:
        self._family = family
        self._settings = settings
        self._num_made = 0
        self._dropped: OrderedDict[str, Item] = OrderedDict()
        self._live = [self._system(system)]

    @property
    def live(self) -> tuple[Item, ...]:
        """Items in the window, the system prompt first."""
        return tuple(self._live)

    @property
    def dropped_bytes(self) -> int:
        """Bytes kept for dropped items."""
        return sum(item.num_bytes for item in self._dropped.values())

    def make(self, content: Content) -> Item:
        """Tokenise or fingerprint a content. It does not enter the window.

        Raises ImageError, VideoError, InputError (an empty text) or SettingError (rank above the chunk's size).
        """
        return self._new(content, self._run(content))

    def enter_reply(self, item_id: str, run: TextRun, text: str) -> None:
        """Enter a reply at the end, under an id from reserve_id."""
        self._live.append(Item(item_id, "reply", "assistant", run, text, new_turn=True))

    def pixels(self, item_id: str) -> Pixels:
        """Pixels of a chunk in the window. Raises UnknownSpanError."""
        run = self._live[self._index(item_id)].run
        if not isinstance(run, Chunk) or run.kind == "document":
            raise UnknownSpanError(f"{item_id!r} is a text; only image and frames spans have pixels.")
        return run.pixels

    def reserve_id(self, kind: Kind) -> str:
        """A fresh id for an item of this kind."""
        self._num_made += 1
        return f"{kind}{self._num_made}"

    def append(self, *items: Item) -> None:
        """Enter items at the end."""
        self._live.extend(items)

    def drop(self, item_id: str) -> None:
        """Take an item out. Raises UnknownSpanError."""
        index = self._index(item_id)
        self._keep_dropped([self._live.pop(index)])

    def recall(self, item_id: str, at: str | None) -> None:
        """Bring a dropped item back before the item `at`, or at the end. Raises UnknownSpanError."""
        if item_id not in self._dropped:
            raise UnknownSpanError(
                f"{item_id!r} is not among the dropped spans {list(self._dropped)}; recall takes what was dropped "
                "and is still kept. Add the content again."
            )
        index = len(self._live) if at is None else self._index(at)
        self._live.insert(index, self._dropped.pop(item_id))

    def reorder(self, item_ids: Sequence[str]) -> None:
        """Put the chunks in this order, at the places where chunks stand. Raises UnknownSpanError."""
        chunks = {item.id: item for item in self._live if isinstance(item.run, Chunk)}
        if sorted(item_ids) != sorted(chunks):
            unknown, missing = sorted(set(item_ids) - set(chunks)), sorted(set(chunks) - set(item_ids))
            raise UnknownSpanError(
                f"reorder names every image and frames span of the window once: unknown {unknown}, missing {missing}, "
                f"given {list(item_ids)}."
            )
        order = iter(item_ids)
        self._live = [chunks[next(order)] if item.id in chunks else item for item in self._live]

    def slide(self, keep_last: int) -> None:
        """Drop all but the newest chunks; texts stay. Raises WindowError for a negative number."""
        if keep_last < 0:
            raise WindowError(f"keep_last is {keep_last}; use 0 or more.")
        chunks = [item for item in self._live if isinstance(item.run, Chunk)]
        gone = chunks[: max(len(chunks) - keep_last, 0)]
        self._live = [item for item in self._live if item not in gone]
        self._keep_dropped(gone)

    def resolve(self, contents: Iterable[Content | str], system: str | None = None) -> list[Item]:
        """The items that a new list of contents would make, the system prompt in front; None leaves it as it is.

        An id stands for an item that is in the window or was dropped. A content equal to such an item becomes it.

        Raises as make does, and UnknownSpanError.
        """
        unused = {item.id: item for item in (*self._live[1:], *self._dropped.values())}
        resolved = []
        for content in contents:
            item = self._named(content, unused) if isinstance(content, str) else self._equal(content, unused)
            unused.pop(item.id, None)
            resolved.append(item)
        first = self._live[0]
        return [first if system in (None, first.text) else self._system(str(system)), *resolved]

    def replace(self, items: Sequence[Item]) -> None:
        """Make a resolved list the window's items; what is not in it counts as dropped."""
        kept = {item.id for item in items}
        gone = [item for item in self._live if item.id not in kept]
        for item_id in kept & self._dropped.keys():
            del self._dropped[item_id]
        self._live = list(items)
        self._keep_dropped(gone)

    def _system(self, text: str) -> Item:
        content = TextContent(text, "system")
        return self.make(content) if text else self._new(content, TextRun(()))

    def _named(self, item_id: str, unused: dict[str, Item]) -> Item:
        if item_id not in unused:
            raise UnknownSpanError(f"{item_id!r} is not a span of the window, or is named twice; add its content.")
        return unused[item_id]

    def _equal(self, content: Content, unused: dict[str, Item]) -> Item:
        if isinstance(content, TextContent):
            texts = (item for item in unused.values() if item.kind in ("text", "reply"))
            same = (item for item in texts if (item.role, item.text) == (content.role, content.text))
            found = next((item for item in same if item.kind == "reply" or item.new_turn == content.new_turn), None)
            return found or self.make(content)
        run = self._run(content)
        known = (content.role, content.new_turn, run.digest)
        same = (item for item in unused.values() if (item.role, item.new_turn, item.run.digest) == known)
        return next(same, None) or self._new(content, run)

    def _run(self, content: Content) -> Run:
        if isinstance(content, TextContent):
            return self._text_run(content.text)
        if isinstance(content, ImageContent):
            chunk = self._family.image_chunk(decode_image(content.image), self._settings.namespace)
        elif isinstance(content, FramesContent):
            frames = stack_frames(content.frames, content.timestamps)
            chunk = self._family.frames_chunk(frames, self._settings.namespace)
        elif isinstance(content, DocumentContent):
            chunk = self._family.document_chunk(_checked(content.text), self._settings.namespace)
        else:
            raise InputError(
                f"Cannot put a {type(content).__name__} into a window; use TextContent, ImageContent, FramesContent or "
                "DocumentContent."
            )
        self._settings.check_rank(len(chunk.token_ids))
        return chunk

    def _new(self, content: Content, run: Run) -> Item:
        kind: Kind = run.kind if isinstance(run, Chunk) else "text"
        text = content.text if isinstance(content, TextContent) else ""
        return Item(self.reserve_id(kind), kind, content.role, run, text, content.new_turn)

    def _text_run(self, text: str) -> TextRun:
        if not (token_ids := self._family.tokens.encode(_checked(text))):
            raise InputError(f"The text {text!r} has no tokens; leave it out.")
        return TextRun(token_ids)

    def _index(self, item_id: str) -> int:
        for index, item in enumerate(self._live[1:], start=1):
            if item.id == item_id:
                return index
        raise UnknownSpanError(f"{item_id!r} is not in the window; it holds {[item.id for item in self._live[1:]]}.")

    def _keep_dropped(self, items: Iterable[Item]) -> None:
        for item in items:
            self._dropped[item.id] = item
        while self._dropped and self.dropped_bytes > self._settings.dropped_bytes:
            self._dropped.popitem(last=False)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"A text is a str; got a {type(text).__name__}.")
    return text
