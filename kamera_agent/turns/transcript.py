"""From LangChain messages to the contents of a window, through the model's own chat template.

Whatever a caller or a page says goes through the template as a placeholder and is put back afterwards, so that text
which looks like the template's own markers stays text.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.turns.tool_calls import take_apart
from kamera_agent.window.content import Content, ImageContent, TextContent

# Where a message keeps what the model said, token for token, if that is more than its content.
METADATA, SAID = "kamera", "said"
THINKING = ("<think>", "</think>")


class Transcript(NamedTuple):
    """What a window is to hold."""

    system: str
    contents: list[Content]


def transcribe(family: Family, messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]] = ()) -> Transcript:
    """The contents of messages. tools: as OpenAI describes them.

    Raises InputError for a block that no window can hold, ImageError for pixels that cannot be read.
    """
    if not messages:
        raise InputError("There are no messages; send at least one.")
    held = _Held()
    turns = family.chat.turns([_plain(message, held) for message in messages], tools)
    system, contents = family.chat.default_system, []
    for number, (role, text) in enumerate(turns):
        parts = [*held.put_back(text)]
        if number == 0 and role == "system":
            if not all(isinstance(part, str) for part in parts):
                raise InputError("A system message holds text only; put the image into a user message.")
            system = "".join(map(str, parts))
        else:
            contents += _turn(role, parts)
    return Transcript(system, contents)


def _turn(role: str, parts: Sequence[str | bytes]) -> list[Content]:
    contents: list[Content] = []
    for part in parts:
        new_turn = not contents
        if isinstance(part, bytes):
            contents.append(ImageContent(part, role, new_turn))
        else:
            contents.append(TextContent(part, role, new_turn))
    return contents


class _Held:
    """Texts and images that a template is not to see, by the words that stand for them."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)
        self._parts: list[str | bytes] = []

    def keep(self, part: str | bytes) -> str:
        self._parts.append(part)
        return f"held{self._nonce}n{len(self._parts) - 1}n"

    def put_back(self, text: str) -> Iterator[str | bytes]:
        """Texts and images of a rendered text in turn; neighbouring texts become one."""
        said = ""
        for index, part in enumerate(re.split(rf"held{self._nonce}n(\d+)n", text)):
            found = self._parts[int(part)] if index % 2 else part
            if isinstance(found, str):
                said += found
                continue
            if said:
                yield said
                said = ""
            yield found
        if said:
            yield said


def _plain(message: BaseMessage, held: _Held) -> dict[str, Any]:
    """A message as chat templates take it, its words and images held back."""
    if isinstance(message, AIMessage):
        return _of_assistant(message, held)
    content = "".join(held.keep(part) for part in _parts(message))
    match message:
        case SystemMessage():
            return {"role": "system", "content": content}
        case HumanMessage():
            return {"role": "user", "content": content}
        case ToolMessage():
            return {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}
        case ChatMessage():
            return {"role": message.role, "content": content}
        case _:
            raise InputError(f"Cannot show a {type(message).__name__} to the model; use system, human, AI and tool.")


def _of_assistant(message: AIMessage, held: _Held) -> dict[str, Any]:
    said = message.response_metadata.get(METADATA, {}).get(SAID)
    if said is not None and _says(said, message):
        return {"role": "assistant", "content": _spoken(said, held)}
    calls = [
        {"type": "function", "function": {"name": call["name"], "arguments": _hold_strings(call["args"], held)}}
        for call in message.tool_calls
    ]
    content = "".join(_spoken(part, held) if isinstance(part, str) else held.keep(part) for part in _parts(message))
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def _spoken(text: str, held: _Held) -> str:
    """Words held back, but not where the model's thinking begins and ends: templates drop that from the history."""
    return "".join(part if part in THINKING else held.keep(part) for part in re.split("(</?think>)", text) if part)


def _says(said: str, message: AIMessage) -> bool:
    """Whether a message is still what the model said."""
    known = take_apart(said)
    calls = [(call["name"], call["args"]) for call in known.calls]
    return known.content == message.text and calls == [(call["name"], call["args"]) for call in message.tool_calls]


def _hold_strings(value: Any, held: _Held) -> Any:
    if isinstance(value, str):
        return held.keep(value)
    if isinstance(value, dict):
        return {key: _hold_strings(item, held) for key, item in value.items()}
    return [_hold_strings(item, held) for item in value] if isinstance(value, list) else value


def _parts(message: BaseMessage) -> Iterator[str | bytes]:
    """Texts and encoded images of a message, in order."""
    for block in message.content_blocks:
        match block["type"]:
            case "text":
                yield block["text"]
            case "image":
                yield pixels_of(block)
            case "tool_call" | "tool_call_chunk" | "invalid_tool_call" | "reasoning":
                continue
            # How others write a call and a thought; the call is among the message's tool calls, too.
            case "non_standard" if block["value"].get("type") in ("tool_use", "thinking", "redacted_thinking"):
                continue
            case "file":
                raise InputError(
                    f"Cannot show a file ({block.get('mime_type', 'of unknown type')}) to the model; use text and "
                    "image blocks. The pages of a document can be sent as images."
                )
            case kind:
                raise InputError(f"Cannot show a block of type {kind!r} to the model; use text and image blocks.")


def pixels_of(block: Mapping[str, Any]) -> bytes:
    """The encoded image of a block. Raises InputError where it holds none."""
    if "base64" not in block:
        place = block.get("url") or block.get("file_id")
        raise InputError(
            f"An image comes as base64 data; nothing is fetched from {place!r}. Read it and send its bytes."
        )
    try:
        return base64.b64decode(block["base64"], validate=True)
    except binascii.Error as error:
        raise InputError(f"The base64 data of an image cannot be decoded: {error}.") from error
