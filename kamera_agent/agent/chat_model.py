"""A LangChain chat model over a Kamera."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from kamera_agent.agent.lifecycle import Lifecycle
from kamera_agent.agent.messages import last_chunk, make_message
from kamera_agent.agent.structured import make_format, read_format, read_with, titled
from kamera_agent.errors import InputError
from kamera_agent.telemetry.drift import Witness
from kamera_agent.telemetry.spans import answer_span
from kamera_agent.telemetry.trace import Trace
from kamera_agent.turns.record import make_record
from kamera_agent.turns.tool_calls import certain, read_choice
from kamera_agent.turns.transcript import transcribe
from kamera_agent.vision.image import decode_image
from kamera_agent.window.reply import Reply, ReplyStream
from kamera_agent.window.sampler import Constraint
from kamera_agent.window.window import Window

Method = Literal["function_calling", "json_schema", "json_mode"]

THREAD = "thread_id"
SAMPLING = ("temperature", "top_p", "top_k", "seed")
OPTIONS = (*SAMPLING, "max_tokens", "conversation", "response_format")


class ChatKamera(Lifecycle):
    """Messages in, a message out; what did not change since the last call is not computed again.

    An agent may edit its message list as it likes: drop screenshots, bring them back, put a stub in their place. Every
    conversation has a live window, found by the thread_id of the run's config or by `conversation=`; without either,
    all calls share one.

    model: a hub id, a folder or "pocket"; where neither it nor kamera is given, the environment variable KAMERA_MODEL.
    model_kwargs: what else Kamera.from_pretrained takes. The model is loaded with the first answer, or by open(): a
    chat model is often made while modules are imported, or before a fork. Chat models of the same model share one
    Kamera; close() gives it back, and the last one closes it. kamera: one that is there already; it stays its owner's.
    A call may name another model (`model=`), which is loaded with the same options and has conversations of its own.

    The reply's usage_metadata tells under cache_read what was kept, moved or recalled, and under cache_creation what
    was computed; response_metadata["kamera"] tells more.

    trace: gets one record an answer. metrics: counts answers, and tells the state of the Kamera. max_string:
    characters of a string in a forced call or in JSON where the schema sets no bound; small models may not know where
    to end. max_conversations, max_bytes: bounds on live windows; what goes can be recalled from the store.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: list[str] | None = None
    trace: Trace | None = Field(default=None, exclude=True, repr=False)

    @property
    def _llm_type(self) -> str:
        return "kamera"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("max_tokens", *SAMPLING)}
        return {"model_name": self.model_name, **options}

    def count_image_tokens(self, image: bytes) -> int:
        """Tokens that an encoded image takes. Raises ImageError."""
        kamera = self.open()
        return len(kamera.family.image_chunk(decode_image(image), kamera.settings.namespace).token_ids)

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

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with replies of a schema: a pydantic class, a TypedDict, a JSON schema or a tool in OpenAI's form.

        Whatever the method, the reply is held to the schema token by token; strict changes nothing.

        method: "function_calling" has the model call a tool of that schema. "json_schema" and "json_mode" have it
        write JSON; the schema is not shown to it, so the prompt should tell what is wanted. "json_mode" without a
        schema gives any JSON object.
        include_raw: a dict with "raw", "parsed" and "parsing_error" instead of what was parsed.
        A reply that max_tokens cuts is read as LangChain reads it: no call (None), or the JSON as far as it goes.
        Raises InputError for another method, and for no schema where one is needed.
        """
        if method not in get_args(Method):
            raise InputError(f"method is {method!r}; use one of {', '.join(get_args(Method))}.")
        if kwargs:
            raise InputError(f"Unknown options {sorted(kwargs)}; bind what goes with every call to the chat model.")
        if schema is None and method != "json_mode":
            raise InputError(f"method={method!r} needs a schema; give one, or use method='json_mode'.")
        if schema is not None and method == "function_calling":
            return super().with_structured_output(titled(schema), include_raw=include_raw)
        told = {"kwargs": {"method": method}, "schema": schema}
        bound = self.bind(response_format=make_format(schema), ls_structured_output_format=told)
        return read_with(bound, schema, include_raw=include_raw)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        model: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chat = self._over(model)
        with chat._answering(messages, stop, run_manager, **kwargs) as answer:
            message = make_message(answer.finish(), chat.model_name)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        model: str | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chat, said, num_sent = self._over(model), "", 0
        with chat._answering(messages, stop, run_manager, **kwargs) as answer:
            for text in answer:
                said += text
                if piece := certain(said)[num_sent:]:
                    num_sent += len(piece)
                    yield _tell(AIMessageChunk(content=piece), run_manager)
            last = make_message(answer.reply, chat.model_name)
        yield _tell(last_chunk(last, num_sent), run_manager)

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
    ) -> Iterator[ReplyStream]:
        """The stream of an answer over the conversation's window, which is held as long."""
        tools = () if tool_choice == "none" else tools
        sampling = {name: options.pop(name, getattr(self, name)) for name in SAMPLING}
        max_new_tokens = options.pop("max_tokens", self.max_tokens)
        if options:
            raise InputError(f"Unknown options {sorted(options)}; use {['model', *OPTIONS]}.")
        live = self._serving.open()
        transcript = transcribe(live.kamera.family, messages, tools)
        schema = read_format(response_format) if response_format else None
        constraint: Constraint | None = (
            live.grammars.forced(tools, tool_choice) if schema is None else live.grammars.json(schema)
        )
        thread = (run_manager.metadata or {}).get(THREAD) if run_manager else None
        conversation_id = str(conversation or thread or "")
        with answer_span(self.model_name, conversation_id) as span, live.conversations.hold(conversation_id) as window:
            window.sync(transcript.contents, transcript.system)
            stop_words = stop or self.stop or ()
            witness = None
            if self.trace and self.trace.drift_is_due():
                witness = constraint = Witness(window.reference_logits(), constraint)
            stream = window.stream(max_new_tokens=max_new_tokens, stop=stop_words, constraint=constraint, **sampling)
            with ReplyStream(self._noted(stream, window, conversation_id, span, witness)) as noted:
                yield noted

    def _noted(
        self,
        stream: ReplyStream,
        window: Window,
        conversation_id: str,
        span: Callable[[Reply], None],
        witness: Witness | None,
    ) -> Generator[str, None, Reply]:
        """The stream, whose reply is told to whoever wants to know of it."""
        with stream:
            yield from stream
        reply = stream.reply
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


def _tell(message: AIMessageChunk, run_manager: CallbackManagerForLLMRun | None) -> ChatGenerationChunk:
    chunk = ChatGenerationChunk(message=message)
    if run_manager:
        run_manager.on_llm_new_token(message.text, chunk=chunk)
    return chunk
