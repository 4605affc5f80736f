"""A LangChain chat model over a Kamera."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, get_args

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from kamera_agent.agent.conversations import Conversations
from kamera_agent.agent.grammar import Grammars, Matcher
from kamera_agent.agent.record import make_record
from kamera_agent.agent.tool_calls import certain, take_apart
from kamera_agent.agent.transcript import METADATA, SAID, transcribe
from kamera_agent.errors import InputError
from kamera_agent.kamera import Kamera
from kamera_agent.plan import Origin
from kamera_agent.reply import Reply
from kamera_agent.runtime.sampler import Constraint
from kamera_agent.telemetry.drift import Witness
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.telemetry.spans import answer_span
from kamera_agent.telemetry.trace import Trace
from kamera_agent.vision.image import decode_image
from kamera_agent.window import Window

THREAD = "thread_id"
SAMPLING = ("temperature", "top_p", "top_k", "seed")
OPTIONS = (*SAMPLING, "max_tokens", "conversation", "response_format")


class ChatKamera(BaseChatModel):
    """Messages in, a message out; what did not change since the last call is not computed again.

    An agent may edit its message list as it likes: drop screenshots, bring them back, put a stub in their place. Every
    conversation has a live window, found by the thread_id of the run's config or by `conversation=`; without either,
    all calls share one.

    The reply's usage_metadata tells under cache_read what was kept, moved or recalled, and under cache_creation what
    was computed; response_metadata["kamera"] tells more.

    trace: gets one record an answer. metrics: counts answers, and tells the state of the Kamera. max_string:
    characters of a string in a forced call or in JSON where the schema sets no bound; small models may not know where
    to end. max_conversations, max_bytes: bounds on live windows; what goes can be recalled from the store.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kamera: Kamera = Field(exclude=True, repr=False)
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: list[str] | None = None
    trace: Trace | None = Field(default=None, exclude=True, repr=False)
    metrics: Metrics | None = Field(default=None, exclude=True, repr=False)
    max_string: int | None = None
    max_conversations: int = 8
    max_bytes: int = 8 << 30

    _conversations: Conversations = PrivateAttr()
    _grammars: Grammars = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Set up the live windows."""
        super().model_post_init(context)
        self._conversations = Conversations(self.kamera, self.max_conversations, self.max_bytes)
        self._grammars = Grammars(self.kamera.family.processors.tokenizer, self.max_string)
        if self.metrics:
            self.metrics.watch(self.kamera, self.model_name)

    @property
    def _llm_type(self) -> str:
        return "kamera"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("max_tokens", *SAMPLING)}
        return {"model_name": self.model_name, **options}

    @property
    def model_name(self) -> str:
        """Id or folder of the checkpoint."""
        return str(self.kamera.family.model.config._name_or_path)

    def count_image_tokens(self, image: bytes) -> int:
        """Tokens that an encoded image takes. Raises ImageError."""
        return len(self.kamera.family.image_chunk(decode_image(image), self.kamera.settings.namespace).token_ids)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools to call.

        tool_choice: "auto" leaves it to the model; "any", "required" or True make it call one, a name makes it call
        that one, through constrained decoding; "none" shows it no tools.
        """
        described = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=described, tool_choice=read_choice(tool_choice), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._answering(messages, stop, run_manager, **kwargs) as answer:
            while True:
                try:
                    next(answer)
                except StopIteration as end:
                    return ChatResult(generations=[ChatGeneration(message=self._message(end.value))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        said, num_sent = "", 0
        with self._answering(messages, stop, run_manager, **kwargs) as answer:
            while True:
                try:
                    said += next(answer)
                except StopIteration as end:
                    last = self._message(end.value)
                    break
                if piece := certain(said)[num_sent:]:
                    num_sent += len(piece)
                    yield _tell(AIMessageChunk(content=piece), run_manager)
        yield _tell(_rest(last, num_sent), run_manager)

    @contextmanager
    def _answering(
        self,
        messages: Sequence[BaseMessage],
        stop: Sequence[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        *,
        tools: Sequence[dict[str, Any]] = (),
        tool_choice: str | None = None,
        conversation: str | None = None,
        response_format: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[Generator[str, None, Reply]]:
        """The stream of an answer over the conversation's window, which is held as long."""
        tools = () if tool_choice == "none" else tools
        sampling = {name: options.pop(name, getattr(self, name)) for name in SAMPLING}
        max_new_tokens = options.pop("max_tokens", self.max_tokens)
        if options:
            raise InputError(f"Unknown options {sorted(options)}; use {[*OPTIONS]}.")
        transcript = transcribe(self.kamera.family, messages, tools)
        constraint: Constraint | None = self._constraint(tools, tool_choice, response_format)
        thread = (run_manager.metadata or {}).get(THREAD) if run_manager else None
        conversation_id = str(conversation or thread or "")
        with answer_span(self.model_name, conversation_id) as span, self._conversations.hold(conversation_id) as window:
            window.sync(transcript.contents, transcript.system)
            stop_words = stop or self.stop or ()
            witness = None
            if self.trace and self.trace.drift_is_due():
                witness = constraint = Witness(window.reference_logits(), constraint)
            stream = window.stream(max_new_tokens=max_new_tokens, stop=stop_words, constraint=constraint, **sampling)
            noted = self._noted(stream, window, conversation_id, span, witness)
            try:
                yield noted
            finally:
                noted.close()

    def _noted(
        self,
        stream: Generator[str, None, Reply],
        window: Window,
        conversation_id: str,
        span: Callable[[Reply], None],
        witness: Witness | None,
    ) -> Generator[str, None, Reply]:
        """The stream, whose reply is told to whoever wants to know of it."""
        reply = yield from stream
        span(reply)
        if self.metrics:
            self.metrics.observe(reply, self.model_name)
        if self.trace:
            drift = witness.measure() if witness else None
            thumbnails = self.trace.thumbnails
            self.trace.write(
                make_record(reply, window, conversation_id, self.model_name, thumbnails=thumbnails, drift=drift)
            )
        return reply

    def _constraint(
        self, tools: Sequence[dict[str, Any]], tool_choice: str | None, response_format: dict[str, Any] | None
    ) -> Matcher | None:
        if response_format is not None:
            # OpenAI puts the schema into an envelope.
            return self._grammars.json(response_format.get("json_schema", {}).get("schema", response_format))
        if tool_choice in (None, "auto", "none"):
            return None
        named = [tool for tool in tools if tool_choice in ("any", tool["function"]["name"])]
        if not named:
            names = [tool["function"]["name"] for tool in tools]
            raise InputError(f"tool_choice is {tool_choice!r}; use one of {names}, 'any', 'auto' or 'none'.")
        return self._grammars.calls(named)

    def _message(self, reply: Reply) -> AIMessage:
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
                "model_name": self.model_name,
                "finish_reason": reply.finish_reason,
                METADATA: more if said.content == reply.text else {**more, SAID: reply.text},
            },
        )


def read_choice(tool_choice: str | dict[str, Any] | bool | None) -> str | None:
    """The name of a tool, "any", "auto" or "none", for all that LangChain, OpenAI and Anthropic call it."""
    match tool_choice:
        case True | "required":
            return "any"
        case False | None:
            return None
        case {"function": {"name": str(name)}} | {"type": "tool", "name": str(name)} | str(name):
            return name
        case {"type": "any" | "auto" | "none" as kind}:
            return str(kind)
        case _:
            raise InputError(f"tool_choice is {tool_choice!r}; use a tool's name, 'any', 'auto' or 'none'.")


def _rest(message: AIMessage, num_sent: int) -> AIMessageChunk:
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


def _tell(message: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None) -> ChatGenerationChunk:
    chunk = ChatGenerationChunk(message=message)
    if run_manager:
        run_manager.on_llm_new_token(message.text, chunk=chunk)
    return chunk
