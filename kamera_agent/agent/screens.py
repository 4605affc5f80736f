"""The screenshots of a message list: found, replaced by ids, and shown to the model or replaced by stubs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ReferenceType, ref

from blake3 import blake3
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from kamera_agent.agent.pixels import PixelFolder
from kamera_agent.errors import ImageError, InputError
from kamera_agent.turns.blocks import (
    MARK,
    NEXT,
    PREFIX,
    Block,
    find_images,
    image_block,
    image_data,
    map_images,
    mark_of,
    read_image,
)

CAPTION = 80
# The name of the tool and of its messages. The artifact of a message holds the steps.
LOOK_BACK = "look_back"
GONE = "[The screenshot of step {step} is no longer stored.]"
BROKEN = "[The screenshot of step {step} could not be read: {error}]"
# The mark of a stowed block holds its step, and where they are not in file_id the id or the reason that there is none.
UNREADABLE = f"{PREFIX}unreadable"
MAX_REASON = 200

M = TypeVar("M", bound=BaseMessage)

logger = logging.getLogger("kamera_agent.agent")


@dataclass(frozen=True, slots=True)
class Screen:
    """A screenshot.

    message: the index of its message. block: as stowed. key: its message and its pixels.
    caption: the first line of the text beside it, cut to CAPTION characters. step: its number in the thread, from 1; 0
    where the block holds none.
    """

    message: int
    block: Block
    key: tuple[str, str]
    caption: str
    step: int = 0

    @property
    def image_id(self) -> str:
        return self.key[1]

    @property
    def is_readable(self) -> bool:
        """Whether its pixels were stored, once."""
        return self.image_id != UNREADABLE


class Stowage:
    """Takes the pixels out of messages and puts ids in their place.

    The pixels of a message are decoded and fingerprinted once while the message lives, however often it is stowed.
    Pixels that cannot be written stay in their block. Safe for use from several threads.
    """

    def __init__(self, folder: PixelFolder) -> None:
        self.folder = folder
        # By id(message), because messages have no hash. An id may be used again once its message is gone.
        self._known: dict[int, tuple[ReferenceType[BaseMessage], dict[Any, dict[str, Any]]]] = {}
        self._warned: set[str] = set()

    def stow(self, message: M) -> M:
        """The message with ids in place of pixels; the message itself where it holds none."""
        if isinstance(message.content, str):
            return message
        stowed: list[Block] = []

        def put(block: Block) -> Block:
            data = image_data(block)
            if data is None:
                return block
            mark = {name: value for name, value in mark_of(block).items() if name == "step"}
            stowed.append(_with_mark(self._put(block, data, self._known_images(message)), mark))
            return stowed[-1]

        content = map_images(message.content, put)
        return message.model_copy(update={"content": content}) if stowed else message

    def read(self, image_id: str, message: BaseMessage) -> bytes | None:
        """The encoded image; None for one that is gone. message: may still hold it. Raises ImageError."""
        try:
            data, error = self.folder.get(image_id), None
        except ImageError as damage:
            data, error = None, damage
        if data is None:
            self._known.pop(id(message), None)
            # Puts it back where the message holds it.
            if self.stow(message) is not message:
                return self.folder.get(image_id)
        if error is not None:
            raise error
        return data

    def has(self, screen: Screen) -> bool:
        """Whether a screenshot can be shown, as far as can be seen without reading it."""
        return image_data(screen.block) is not None or (screen.is_readable and self.folder.touch(screen.image_id))

    def encoded(self, screen: Screen) -> bytes | None:
        """The encoded image of a screenshot; None for one that cannot be read."""
        try:
            if image_data(screen.block) is not None:
                return read_image(screen.block)
            return self.folder.get(screen.image_id)
        except ImageError:
            return None

    def warn(self, message: str, *values: object) -> None:
        """Log a warning, once."""
        text = message % values
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    def _put(self, block: Block, data: Any, known: dict[Any, dict[str, Any]]) -> dict[str, Any]:
        # Objects such as PIL images may change.
        key = data if isinstance(data, (str, bytes, os.PathLike)) else None
        stowed = known.get(key)
        if stowed is None or not self._lasts(stowed):
            stowed = self._store(block)
            if key is not None:
                known[key] = stowed
        return stowed

    def _lasts(self, stowed: Block) -> bool:
        return stowed.get("file_id") == UNREADABLE or ("file_id" in stowed and self.folder.touch(stowed["file_id"]))

    def _store(self, block: Block) -> dict[str, Any]:
        try:
            data = read_image(block)
            image_id = self.folder.identify(data)
        except InputError as error:
            self.warn("A screenshot could not be read: %s", error)
            return _with_mark({"type": "image", "file_id": UNREADABLE}, {"error": str(error)[:MAX_REASON]})
        try:
            return {"type": "image", "file_id": self.folder.put(data)}
        except OSError as error:
            self.warn(
                "Cannot write screenshots to %s (%s); their pixels stay in the messages.",
                self.folder.path,
                error.strerror,
            )
            return _with_mark(image_block(data), {"id": image_id})

    def _known_images(self, message: BaseMessage) -> dict[Any, dict[str, Any]]:
        """The stowed blocks of a message by the data of its images, which is compared: a message may be changed."""
        key, all_known = id(message), self._known
        reference, known = all_known.get(key, (None, {}))
        if reference is None or reference() is not message:
            known = {}
            all_known[key] = ref(message, lambda _: all_known.pop(key, None)), known
        return known


def list_screens(messages: Sequence[BaseMessage]) -> list[Screen]:
    """All screenshots in order, once their pixels are stowed."""
    screens: list[Screen] = []
    for number, message in enumerate(messages):
        stowed = [block for block in find_images(message.content) if _image_id(block)]
        if not stowed:
            continue
        text = message.text.strip()
        caption = text.splitlines()[0][:CAPTION] if text else ""
        name = message.id or _name(message)
        screens += [Screen(number, block, (name, _image_id(block)), caption, _step(block)) for block in stowed]
    return screens


def looked_back(messages: Sequence[BaseMessage], screens: Sequence[Screen]) -> set[int]:
    """The steps that look_back was asked for since the reply that led to the newest screenshot."""
    newest = screens[-1].message if screens else 0
    asked = max((place for place in range(newest) if isinstance(messages[place], AIMessage)), default=0)
    # From that reply on, not from the screenshot: it may have asked for both at once, in either order.
    answers = [
        message for message in messages[asked:] if isinstance(message, ToolMessage) and message.name == LOOK_BACK
    ]
    # A tool of that name may be the caller's own.
    artifacts = [message.artifact for message in answers if isinstance(message.artifact, (list, tuple))]
    return {step for artifact in artifacts for step in artifact if isinstance(step, int)}


def replace_screens(messages: Sequence[M], screens: Sequence[Screen], change: Callable[[Screen], Block]) -> list[M]:
    """The messages with another block for every screenshot. screens: those of list_screens, in their order."""
    left = iter(screens)
    holders = {screen.message for screen in screens}

    def change_screen(block: Block) -> Block:
        return change(next(left)) if _image_id(block) else block

    return [
        message.model_copy(update={"content": map_images(message.content, change_screen)})
        if number in holders
        else message
        for number, message in enumerate(messages)
    ]


def with_step(screen: Screen) -> Block:
    """The block of a screenshot, holding its step."""
    return _with_mark(screen.block, {**mark_of(screen.block), "step": screen.step})


def show(
    originals: Sequence[BaseMessage],
    messages: Sequence[M],
    screens: Sequence[Screen],
    stowage: Stowage,
    stub: Callable[[Screen], str | None],
    next_stub: Callable[[Screen], str | None],
) -> list[M]:
    """The messages as the model sees them: a screenshot is a stub where there is one for it, and pixels elsewhere.

    A screenshot that cannot be shown becomes a stub that says so. originals: the messages before they were stowed.
    next_stub: what the next call is going to have; where it is another one, the block is marked with it.
    """

    def change(screen: Screen) -> Block:
        text, next_text = stub(screen), next_stub(screen)
        block = _shown(screen, originals[screen.message], stowage) if text is None else {"type": "text", "text": text}
        return block if next_text in (None, text) else _with_mark(block, {NEXT: next_text})

    return replace_screens(messages, screens, change)


def _shown(screen: Screen, original: BaseMessage, stowage: Stowage) -> dict[str, Any]:
    if image_data(screen.block) is not None:
        return {name: value for name, value in screen.block.items() if name != "extras"}
    error = mark_of(screen.block).get("error")
    try:
        data = stowage.read(screen.image_id, original) if screen.is_readable else None
    except ImageError as damage:
        error, data = str(damage), None
    if data is not None:
        return image_block(data)
    text = BROKEN.format(step=screen.step, error=error) if error else GONE.format(step=screen.step)
    if screen.is_readable:
        stowage.warn("%s It is %s in %s.", text, screen.image_id, stowage.folder.path)
    return {"type": "text", "text": text}


def _with_mark(block: Block, mark: Mapping[str, Any]) -> dict[str, Any]:
    mark = {**mark_of(block), **mark}
    return {**block, "extras": {MARK: mark}} if mark else dict(block)


def _image_id(block: Block) -> str:
    """The id of a stowed block; empty for other blocks, which are no screenshots of ours."""
    image_id = block.get("file_id") or mark_of(block).get("id")
    return image_id if isinstance(image_id, str) and image_id.startswith(PREFIX) else ""


def _step(block: Block) -> int:
    step = mark_of(block).get("step")
    return step if isinstance(step, int) and step > 0 else 0


def _name(message: BaseMessage) -> str:
    """The name of a message without an id."""
    facts = repr((message.type, getattr(message, "tool_call_id", None), str(message.text)))
    return blake3(facts.encode(errors="surrogatepass")).hexdigest()
