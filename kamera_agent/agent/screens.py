"""The screenshots of a message list: found, replaced by ids, and shown to the model or replaced by stubs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar
from weakref import ReferenceType, ref

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from PIL import Image

from kamera_agent.agent.messages import is_id, pixels_of
from kamera_agent.agent.pixels import PixelFolder

CAPTION = 80
# The name of the tool and of its messages. The artifact of a message holds the steps.
LOOK_BACK = "look_back"

Block = dict[str, Any]
M = TypeVar("M", bound=BaseMessage)


@dataclass(frozen=True, slots=True)
class Screen:
    """A screenshot.

    step: its number among all screenshots, from 1. place: the indices of its message and of its block there.
    caption: the first line of the text beside it, cut to CAPTION characters.
    """

    step: int
    place: tuple[int, int]
    image_id: str
    caption: str


class Stowage:
    """Takes the pixels out of messages and puts ids in their place.

    The pixels of a message are decoded and fingerprinted once while the message lives, however often it is stowed.
    Safe for use from several threads.
    """

    def __init__(self, folder: PixelFolder) -> None:
        self.folder = folder
        # By id(message), because messages have no hash. An id may be used again once its message is gone.
        self._known: dict[int, tuple[ReferenceType[BaseMessage], dict[str, str]]] = {}

    def stow(self, message: M) -> M:
        """The message with ids in place of pixels; the message itself where it holds none. Raises InputError."""
        if isinstance(message.content, str):
            return message
        blocks = message.content_blocks
        if not any(_has_pixels(block) for block in blocks):
            return message
        known = self._known_images(message)
        stowed = [
            {"type": "image", "file_id": self._put(block, known)} if _has_pixels(block) else dict(block)
            for block in blocks
        ]
        return message.model_copy(update={"content": stowed})

    def _put(self, block: Any, known: dict[str, str]) -> str:
        image_id = known.get(block["base64"])
        if image_id is None or not self.folder.touch(image_id):
            image_id = known[block["base64"]] = self.folder.put(pixels_of(block))
        return image_id

    def _known_images(self, message: BaseMessage) -> dict[str, str]:
        """The ids of the images of a message by their base64 text, which is compared: a message may be changed."""
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
        for index, block in _stowed(message):
            caption = message.text.strip().splitlines()[0][:CAPTION] if message.text.strip() else ""
            screens.append(Screen(len(screens) + 1, (number, index), block["file_id"], caption))
    return screens


def looked_back(messages: Sequence[BaseMessage], screens: Sequence[Screen]) -> set[int]:
    """The steps that look_back was asked for since the reply that led to the newest screenshot."""
    newest = screens[-1].place[0] if screens else 0
    asked = max((place for place in range(newest) if isinstance(messages[place], AIMessage)), default=0)
    # From that reply on, not from the screenshot: it may have asked for both at once, in either order.
    answers = [
        message for message in messages[asked:] if isinstance(message, ToolMessage) and message.name == LOOK_BACK
    ]
    return {step for message in answers for step in message.artifact or ()}


def show(
    messages: Sequence[M],
    screens: Sequence[Screen],
    shown: Collection[int],
    folder: PixelFolder,
    stub: Callable[[Screen], str],
) -> list[M]:
    """The messages as the model sees them: pixels for the steps in `shown`, stubs for the others."""
    by_place = {screen.place: screen for screen in screens}
    edited = []
    for number, message in enumerate(messages):
        stowed = dict(_stowed(message))
        if not stowed:
            edited.append(message)
            continue
        blocks: list[Any] = list(message.content)
        for index, block in stowed.items():
            screen = by_place[number, index]
            if screen.step in shown:
                blocks[index] = _with_pixels(block["file_id"], folder)
            else:
                blocks[index] = {"type": "text", "text": stub(screen)}
        edited.append(message.model_copy(update={"content": blocks}))
    return edited


def _stowed(message: BaseMessage) -> Iterator[tuple[int, Block]]:
    if isinstance(message.content, str):
        return
    for index, block in enumerate(message.content):
        if is_id(block):
            yield index, block


def _has_pixels(block: Any) -> bool:
    return block["type"] == "image" and "base64" in block


def _with_pixels(image_id: str, folder: PixelFolder) -> Block:
    data = folder.get(image_id)
    with Image.open(BytesIO(data)) as image:
        mime_type = image.get_format_mimetype()
    return {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": mime_type}
