"""From replies to LangChain messages, whole or in chunks."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import get_args

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk

from kamera_agent.turns.tool_calls import take_apart
from kamera_agent.turns.transcript import METADATA, SAID
from kamera_agent.window.plan import Origin
from kamera_agent.window.reply import Reply


def make_message(reply: Reply, model_name: str) -> AIMessage:
    """A reply with its calls, what it cost, and what it rested on."""
    said, usage = take_apart(reply.text), reply.usage
    origins = {name: getattr(usage, f"tokens_{name}") for name in get_args(Origin)}
    total = sum(origins.values())
    more = {"origins": origins, "timings": asdict(reply.timings)}
    return AIMessage(
        content=said.content,
        tool_calls=said.calls,
        invalid_tool_calls=said.invalid,
        usage_metadata=UsageMetadata(
            input_tokens=total,
            output_tokens=usage.tokens_generated,
            total_tokens=total + usage.tokens_generated,
            input_token_details=InputTokenDetails(
                cache_read=total - usage.tokens_computed, cache_creation=usage.tokens_computed
            ),
        ),
        response_metadata={
            "model_name": model_name,
            "finish_reason": reply.finish_reason,
            METADATA: more if said.content == reply.text else {**more, SAID: reply.text},
        },
    )


def last_chunk(message: AIMessage, num_sent: int) -> AIMessageChunk:
    """The last chunk of a stream: what is left of the text, the calls, and what it cost."""
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    broken = [
        tool_call_chunk(name=call["name"], args=call["args"], id=call["id"], index=len(calls) + index)
        for index, call in enumerate(message.invalid_tool_calls)
    ]
    return AIMessageChunk(
        content=str(message.content)[num_sent:],
        tool_call_chunks=[*calls, *broken],
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
