"""The outline of a window: enough of its contents to tell whether a call goes on from it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

from blake3 import blake3

from kamera_agent.errors import ImageError
from kamera_agent.turns.background import Cancelled, never
from kamera_agent.turns.message import unreadable
from kamera_agent.turns.pixels import check_pixels
from kamera_agent.turns.transcript import Transcript
from kamera_agent.vision.fingerprint import fingerprint_image
from kamera_agent.vision.image import Pixels, decode_image
from kamera_agent.window.content import Content, ImageContent, TextContent

logger = logging.getLogger("kamera_agent.conversations")

# Images whose pixel digests are remembered: a few hundred kilobytes.
MAX_DIGESTS = 4096

# An image counts as a text of so many characters.
IMAGE_SIZE = 1000


class Part(NamedTuple):
    """What a content is. content: its text, or the digest of its pixels. size: in characters."""

    role: str
    content: str
    size: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The contents of a call in order, the system prompt first. reply: the answer to it; None before there is one."""

    parts: tuple[Part, ...] = ()
    reply: Part | None = None

    def replied(self, text: str) -> Outline:
        """The outline of the same window once it has answered."""
        return replace(self, reply=Part("assistant", text, len(text)))

    @property
    def _all(self) -> tuple[Part, ...]:
        return self.parts if self.reply is None else (*self.parts, self.reply)

    def num_shared(self, call: Outline) -> int:
        """How many contents the window and a call have in common at their beginning."""
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._all, call.parts, strict=False)))

    def goes_on_in(self, call: Outline) -> bool:
        """Whether a call is the next one over this window, rather than a branch or a call of somebody else.

        It is if it holds all of the window, the last reply, or half of what follows the common beginning, with or
        without the last question. So an agent may edit the middle of its history freely. A branch from an earlier state
        holds none of these, nor does a summary of everything.
        """
        num_shared = self.num_shared(call)
        ours, theirs = self.parts[num_shared:], set(call.parts[num_shared:])
        replies = takewhile(lambda part: part.role == "assistant", reversed(self._all))
        return (
            num_shared >= len(self.parts)
            or any(part in theirs for part in replies)
            or _holds_half(theirs, ours)
            # The next question is another one. Where only the question differs, the call is a branch.
            or (len(ours) > 1 and _holds_half(theirs, ours[:-1]))
        )

    def size_held(self, call: Outline) -> int:
        """Size of the parts of a call that the window holds, wherever they are."""
        ours = set(self._all)
        return sum(part.size for part in call.parts if part in ours)

    def known(self, call: Outline) -> float:
        """The share of a call's history, up to its last reply, that the window holds somewhere. 1 without a history."""
        ends = [index for index, part in enumerate(call.parts, start=1) if part.role == "assistant"]
        history = call.parts[: ends[-1]] if ends else ()
        size, ours = sum(part.size for part in history), set(self._all)
        return sum(part.size for part in history if part in ours) / size if size else 1.0


def _holds_half(theirs: Collection[Part], ours: Sequence[Part]) -> bool:
    return 2 * sum(part.size for part in ours if part in theirs) >= sum(part.size for part in ours)


def _key(content: Content) -> bytes:
    """What an image is remembered by; nothing for a text."""
    return blake3(content.image).digest(16) if isinstance(content, ImageContent) else b""


class Outliner:
    """Makes outlines. It decodes an image when it first sees its bytes. Safe for use from several threads.

    An image that cannot be decoded or shown becomes a text that says so; the log gives the reason once.
    """

    def __init__(self, check: Callable[[Pixels], object]) -> None:
        """check: raises ImageError for pixels that cannot be shown."""
        self._check = check
        self._digests: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def outline(self, transcript: Transcript, cancelled: Cancelled = never) -> tuple[Outline, list[Content]]:
        """The outline of a transcript, and its contents with the new images decoded.

        cancelled: looked at before each image is decoded; where it returns True, GeneratorExit is raised.
        Raises InputError for new images that are too large together, before any of them is decoded.
        """
        keyed = [(content, _key(content)) for content in transcript.contents]
        with self._lock:
            new = [content for content, key in keyed if not self._digests.get(key)]
        check_pixels(new)
        pairs = [self._read(content, key, cancelled) for content, key in keyed]
        system = Part("system", transcript.system, len(transcript.system))
        return Outline((system, *(part for part, _ in pairs))), [content for _, content in pairs]

    def _read(self, content: Content, key: bytes, cancelled: Cancelled) -> tuple[Part, Content]:
        if isinstance(content, TextContent):
            return Part(content.role, content.text, len(content.text)), content
        assert isinstance(content, ImageContent), "a transcript holds texts and encoded images"
        with self._lock:
            if digest := self._digests.get(key):
                self._digests.move_to_end(key)
                return Part(content.role, digest, IMAGE_SIZE), content
        if cancelled():
            raise GeneratorExit
        try:
            pixels: Any = decode_image(content.image)
            self._check(pixels)
        except ImageError as error:
            if key not in self._digests:
                logger.warning("An image could not be read: %s", error)
            self._note(key, "")
            text = unreadable(error)
            return Part(content.role, text, len(text)), TextContent(text, content.role, content.new_turn)
        digest = fingerprint_image(pixels)
        self._note(key, digest)
        return Part(content.role, digest, IMAGE_SIZE), replace(content, image=pixels)

    def _note(self, key: bytes, digest: str) -> None:
        with self._lock:
            self._digests[key] = digest
            if len(self._digests) > MAX_DIGESTS:
                self._digests.popitem(last=False)
