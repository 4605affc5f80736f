"""The blocks of a message in the forms that libraries write: texts, images, and those that a model cannot be shown."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from PIL import Image

from kamera_agent.errors import ImageError, InputError
from kamera_agent.options import several
from kamera_agent.turns.message import unreadable
from kamera_agent.vision.image import decode_image

Block = Mapping[str, Any]
Content = str | Sequence[str | Block]

# Ids that ScreenWindow puts in the place of pixels.
PREFIX = "kamera:"
# extras[MARK] of a block holds what ScreenWindow says of it.
MARK = "kamera"
# The text that takes the place of a block in the next call, in its mark.
NEXT = "next"

IMAGES = {"image", "image_url", "input_image", "computer_screenshot"}
# Blocks of anything; their MIME type names the kind.
CARRIERS = {"media", "file", "inline_data", "inlineData", "resource", "blob"}
TEXTS = {"text", "input_text", "output_text", "text-plain", "refusal", "custom_tool_call_output"}
# Not shown. Calls are in message.tool_calls as well.
SILENT = {
    *("tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "toolUse", "function_call"),
    *("reasoning", "reasoning_content", "thinking", "redacted_thinking", "cachePoint", "cache_point"),
}
# Where images are in their blocks: the keys of LangChain, MCP, Bedrock, transformers, OpenAI, Anthropic and Google.
DATA = ("base64", "data", "bytes", "blob")
EITHER = ("image", "source", "image_url", "url", "inline_data", "inlineData", "resource", "file_data", "file")
REFERENCES = ("path", "file_id", "fileId", "file_uri", "uri")
MIME_TYPES = ("mime_type", "mimeType", "media_type")

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
MAX_QUOTED = 60


class _Place(NamedTuple):
    """A key of a block and its value: the data of an image, or a reference to it."""

    key: str
    value: Any


def read_content(content: Content, *, ahead: bool = False) -> Iterator[str | bytes]:
    """The texts and encoded images of a content, in order; texts that are empty or None are left out.

    ahead: as the next call will have them, as far as the blocks say so.
    An image whose data cannot be read becomes a text that says so. Raises InputError for a block that a model cannot be
    shown, and for a mere reference to an image.
    """
    for block in _blocks(content):
        if isinstance(block, str):
            part: str | bytes = block
        elif ahead and NEXT in mark_of(block):
            part = mark_of(block)[NEXT]
        elif is_image(block):
            part = _read_or_say(block)
        elif _kind(block) == "tool_result":
            yield from read_content(block.get("content") or "", ahead=ahead)
            continue
        else:
            part = "" if _kind(block) in SILENT else _text(block)
        if part:
            yield part


def map_images(content: Content, change: Callable[[Block], Block]) -> list[Any]:
    """The blocks of a content, with every image changed, also those in tool results."""
    changed: list[Any] = []
    for block in _blocks(content):
        if isinstance(block, str):
            changed.append(block)
        elif is_image(block):
            changed.append(change(block))
        elif _kind(block) == "tool_result" and isinstance(block.get("content"), list):
            changed.append({**block, "content": map_images(block["content"], change)})
        else:
            changed.append(block)
    return changed


def find_images(content: Content) -> list[Block]:
    """The blocks of the images of a content, in the order of map_images."""
    found: list[Block] = []

    def note(block: Block) -> Block:
        found.append(block)
        return block

    map_images(content, note)
    return found


def mark_of(block: Block) -> Mapping[str, Any]:
    """What ScreenWindow says of a block."""
    extras = block.get("extras")
    mark = extras.get(MARK) if isinstance(extras, Mapping) else None
    return mark if isinstance(mark, Mapping) else {}


def is_image(block: Block) -> bool:
    """Whether a block is an image: its data, or a reference to it."""
    kind = _kind(block)
    return kind in IMAGES or (kind in CARRIERS and _mime_type(block).startswith("image/"))


def is_id(block: Block) -> bool:
    """Whether a block is an image that a ScreenWindow has put into its folder."""
    return str(block.get("file_id", "")).startswith(PREFIX)


def image_data(block: Block) -> Any:
    """The data of an image as its block holds it: a text, bytes, a path or an object. None for a mere reference."""
    key, value = _place(block)
    if not isinstance(value, str) or value[:5].lower() == "data:" or key in DATA:
        return value
    # A base64 text has no colon and no dot.
    is_reference = key in REFERENCES or SCHEME.match(value) or "." in value[:300]
    return None if is_reference else value


def read_image(block: Block) -> bytes:
    """The encoded image of a block. Raises InputError for a mere reference and for data that is no base64."""
    data = image_data(block)
    if isinstance(data, str):
        return _decode_url(data) if data[:5].lower() == "data:" else _decode(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    # A text never names a file: it may come from a stranger, while a Path is an object of this program.
    if isinstance(data, os.PathLike):
        return _read_file(Path(data))
    if isinstance(data, (Image.Image, np.ndarray)):
        file = BytesIO()
        # decode_image applies the orientation and the transparency, which a PNG of the object would not show.
        Image.fromarray(decode_image(data)).save(file, "PNG", compress_level=1)
        return file.getvalue()
    raise InputError(f"An image comes as base64 data; {_missing(block)} Read it and send its bytes.")


def image_block(data: bytes) -> dict[str, Any]:
    """LangChain's own block of an encoded image."""
    with Image.open(BytesIO(data)) as image:
        mime_type = image.get_format_mimetype()
    return {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": mime_type}


def _read_or_say(block: Block) -> str | bytes:
    try:
        return read_image(block)
    except InputError as error:
        if image_data(block) is None:
            raise
        return unreadable(error)


def _blocks(content: Content) -> Iterator[str | Block]:
    """The blocks, taken out of the wrappers that LangChain puts around those of providers."""
    for block in [content] if isinstance(content, str) else several("The content of a message", content):
        while isinstance(block, Mapping) and block.get("type") == "non_standard" and "value" in block:
            block = block["value"]
        if not isinstance(block, str | Mapping):
            raise InputError(f"The content of a message has {short(block)}; use texts and blocks.")
        yield block


def _kind(block: Block) -> str:
    """The type of a block; the first key where it has none, as in Bedrock's and Google's blocks."""
    return str(block.get("type") or next(iter(block), "nothing"))


def _mime_type(block: Block) -> str:
    value: Any = block
    while isinstance(value, Mapping):
        block = value
        if own := next((block[key] for key in MIME_TYPES if isinstance(block.get(key), str)), ""):
            return str(own).lower()
        value = next((block[key] for key in EITHER if block.get(key) is not None), None)
    declared = re.match(r"data:([\w.+-]+/[\w.+-]+)", value[:100], re.IGNORECASE) if isinstance(value, str) else None
    return declared[1].lower() if declared else ""


def _place(block: Block) -> _Place:
    key, value = "", cast(Any, block)
    while isinstance(value, Mapping):
        block = value
        key = next((key for key in (*DATA, *EITHER, *REFERENCES) if block.get(key) is not None), "")
        value = block.get(key)
    return _Place(key, value)


def _decode_url(url: str) -> bytes:
    header, comma, data = url.partition(",")
    if not comma:
        raise InputError(f"The data URL {_quote(url)} has no comma; write data:image/png;base64,... with the data.")
    is_base64 = header.rstrip().lower().endswith("base64")
    # A lone surrogate has no bytes.
    return _decode(data) if is_base64 else unquote_to_bytes(data.encode("utf-8", "replace"))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        # With line breaks, of a URL (- and _, or percent signs), or without padding.
        plain = re.sub(r"\s+", "", unquote(text)).translate({45: 43, 95: 47}).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        reason = error if isinstance(error, binascii.Error) else "it has characters beyond ASCII"
        raise InputError(f"The base64 data of an image cannot be decoded: {reason}.") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"Cannot read the image {_quote(str(path))}: {error.strerror}.") from error


def _missing(block: Block) -> str:
    """What a block has in the place of its data."""
    key, value = _place(block)
    if value is None:
        return f"a block of type {_quote(_kind(block))} has none."
    if str(value).startswith(PREFIX):
        return f"{_quote(value)} is an id of a ScreenWindow, which shows it."
    return f"nothing is {'read' if key == 'path' else 'fetched'} from {_quote(value)}."


def _text(block: Block) -> str:
    kind = _kind(block)
    if kind in TEXTS:
        text = next((block[key] for key in ("text", "refusal", "output") if block.get(key) is not None), None)
        return text if isinstance(text, str) else ""
    if kind == "json":
        return json.dumps(block.get("json"), ensure_ascii=False)
    resource = block.get("resource")
    if isinstance(resource, Mapping) and isinstance(resource.get("text"), str):
        return str(resource["text"])
    if kind in CARRIERS or kind in ("document", "input_file"):
        raise InputError(
            f"Cannot show a file ({_cut(_mime_type(block) or 'of unknown type')}) to the model; use text and image "
            "blocks. The pages of a document can be sent as images."
        )
    name = kind.removeprefix("input_")
    raise InputError(f"Cannot show a block of type {_quote(name)} to the model; use text and image blocks.")


def _quote(value: Any) -> str:
    return repr(_cut(str(value)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}... ({len(text):,} characters)"
