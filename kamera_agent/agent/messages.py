"""LangChain messages to the messages of turns/, and replies back to LangChain messages, whole or in chunks."""

from __future__ import annotations

from dataclasses import asdict
from reprlib import repr as short
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from kamera_agent.errors import InputError
from kamera_agent.options import several
from kamera_agent.turns.blocks import is_id, read_content
from kamera_agent.turns.message import Message, ToolCall
from kamera_agent.turns.tool_calls import ParsedReply, Piece, new_call_id
from kamera_agent.window.reply import Reply

# response_metadata["kamera"]["said"] holds the generated text where it is more than the content of the message.
METADATA, SAID = "kamera", "said"


def listed(messages: Any) -> list[Any]:
    """The messages of a list. Raises InputError for what is none."""
    for message in (all_messages := several("messages", messages)):
        if not isinstance(message, BaseMessage):
            raise InputError(f"messages has {short(message)}; use LangChain's messages.")
    return all_messages


def read_message(message: BaseMessage, *, ahead: bool = False) -> Message:
    """Translate a LangChain message.

    ahead: as the next call will have it, as far as its blocks say so.
    Raises InputError for a kind of message or block that cannot be shown to the model.
    """
    parts = tuple(read_content(message.content, ahead=ahead))
    match message:
        case AIMessage():
            calls = tuple(ToolCall(call["name"], call["args"]) for call in message.tool_calls)
            return Message("assistant", parts, calls, verbatim=message.response_metadata.get(METADATA, {}).get(SAID))
        case SystemMessage():
            return Message("system", parts)
        case HumanMessage():
            return Message("user", parts)
        case ToolMessage():
            return Message("tool", parts, call_id=message.tool_call_id)
        case ChatMessage():
            return Message(message.role, parts)
        case _:
            raise InputError(
                f"Cannot show a {type(message).__name__} to the model; use system, human, AI and tool messages."
            )


def without_ids(message: BaseMessage) -> BaseMessage:
    """The message without images that are ids of a folder; the message itself where it has none."""
    if isinstance(message.content, str):
        return message
    blocks = [block for block in message.content if isinstance(block, str) or not is_id(block)]
    return message if len(blocks) == len(message.content) else message.model_copy(update={"content": blocks})


def make_message(reply: Reply, parsed: ParsedReply, model_name: str) -> AIMessage:
    """The message of a reply: content, calls, usage, and the origins and timings of the answer."""
    usage = reply.usage
    origins = usage.origins
    total = sum(origins.values())
    details = {"origins": origins, "timings": asdict(reply.timings)}
    return AIMessage(
        content=parsed.content,
        tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=new_call_id()) for call in parsed.calls],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.text, id=new_call_id(), error=call.error)
            for call in parsed.broken
        ],
        usage_metadata=UsageMetadata(
            input_tokens=total,
            output_tokens=usage.tokens_generated,
            total_tokens=total + usage.tokens_generated,
            input_token_details=InputTokenDetails(
                cache_read=total - reply.plan.num_computed, cache_creation=reply.plan.num_computed
            ),
        ),
        response_metadata={
            "model_name": model_name,
            "finish_reason": reply.finish_reason,
            METADATA: details if parsed.content == reply.text else {**details, SAID: reply.text},
        },
    )


class Chunks:
    """The pieces of one reply as message chunks, whose sum is make_message() of the reply."""

    def __init__(self) -> None:
        self._num_calls = 0

    def make(self, piece: Piece) -> AIMessageChunk:
        """The chunk of content, or of a piece of a call: its id and name come with the first piece."""
        if isinstance(piece, str):
            return AIMessageChunk(content=piece)
        is_new = piece.index == self._num_calls
        self._num_calls += is_new
        call = tool_call_chunk(
            name=piece.name, args=piece.arguments, id=new_call_id() if is_new else None, index=piece.index
        )
        return AIMessageChunk(content="", tool_call_chunks=[call])


def last_chunk(message: AIMessage) -> AIMessageChunk:
    """The last chunk of a stream, after content and calls: the usage and the metadata of the message."""
    return AIMessageChunk(
        content="",
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
