"""A LangChain chat model over a Kamera."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from kamera_agent.agent.messages import Chunks, last_chunk, listed, make_message, read_message, without_ids
from kamera_agent.agent.overflow import reporting_overflow
from kamera_agent.agent.profile import profile_of
from kamera_agent.agent.run import find_run, in_run
from kamera_agent.agent.structured import describe_tools, make_format, read_call, read_json, titled
from kamera_agent.closing import Closing
from kamera_agent.errors import InputError, SettingError
from kamera_agent.kamera import Kamera
from kamera_agent.options import whole
from kamera_agent.telemetry.guard import Guard
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.telemetry.trace import Trace
from kamera_agent.turns.background import Cancelled, aread, never, read
from kamera_agent.turns.chat import MAX_TOKENS, Chat, Limits, Request
from kamera_agent.turns.grammar import read_format
from kamera_agent.turns.habits import drop_habits
from kamera_agent.turns.source import check_place, choose_source, written_down
from kamera_agent.turns.tools import read_choice
from kamera_agent.window.items import readable
from kamera_agent.window.options import read_options
from kamera_agent.window.sampler import SamplingOptions

RunManager = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
Method = Literal["function_calling", "json_schema", "json_mode"]

SAMPLING = ("temperature", "top_p", "top_k", "seed")
ANSWER = (*SAMPLING, "max_tokens", "stop")
BOUNDS = ("max_string", "max_conversations", "max_bytes")
# Options of one call. tools and tool_choice come from bind_tools.
OPTIONS = (*SAMPLING, "max_tokens", "conversation", "agent", "response_format", "tools", "tool_choice")


class ChatKamera(BaseChatModel, Closing):
    """A chat model that computes only those parts of a conversation that have changed since its last call.

    An agent may edit its message list freely: drop screenshots, bring them back, or put stubs in their place. A
    conversation is the thread_id of the run's config, or `conversation=` of a call. It holds a live window for each
    agent that speaks in it (by the nodes of the run, or `agent=`) and for each branch of its history.

    model: a hub id, a folder or "pocket". Without model and kamera, the environment variable KAMERA_MODEL names it.
    model_kwargs: other arguments of Kamera.from_pretrained. The model is loaded by the first answer or by open(),
    because a chat model is often made while modules are imported, or before a fork. Chat models of the same model share
    one Kamera; close() gives it back, and the last one closes it. kamera: a Kamera to use instead; its owner closes it.
    A call may name another model (`model=`), which is loaded with the same options and has its own conversations.

    usage_metadata of a reply counts kept, moved and recalled tokens under cache_read, and computed tokens under
    cache_creation. response_metadata["kamera"] has the origins one by one, and the timings.

    max_string: characters of a string in a forced call or in JSON where the schema sets no bound; small models may not
    stop. max_conversations, max_bytes: bounds on live windows; the chunks of a window that goes can be recalled.
    metrics: counts answers and reports the state of the Kamera. trace: gets one record per answer; a path
    is short for a Trace without options. guard: how the drift of conversations is watched; None does not watch it.
    profile: the size of the window and other facts, for LangChain's middleware. Asking for it, or for a number of
    tokens, loads the model.
    """

    # Older versions of pydantic warn of model_kwargs unless protected_namespaces is empty.
    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    # Frozen fields are handed to the chat when the model is made; a later assignment would have no effect.
    kamera: Kamera | None = Field(default=None, exclude=True, repr=False, frozen=True)
    model: str | None = Field(default=None, frozen=True)
    model_kwargs: dict[str, Any] = Field(default={}, frozen=True)
    max_string: int | None = Field(default=None, frozen=True)
    max_conversations: int = Field(default=8, frozen=True)
    max_bytes: int = Field(default=8 << 30, frozen=True)
    metrics: Metrics | None = Field(default=None, exclude=True, repr=False, frozen=True)
    trace: Trace | str | os.PathLike[str] | None = Field(default=None, exclude=True, repr=False, frozen=True)
    guard: Guard | None = Field(default=Guard(), exclude=True, repr=False, frozen=True)
    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: str | list[str] | None = None

    _chat: Chat = PrivateAttr()

    # Type checkers keep the signature that pydantic gives the class.
    if not TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            """Raises InputError for both a model and a Kamera, and for neither; SettingError for a wrong option."""
            # Not in a validator: pydantic would turn these errors into a ValidationError.
            check_place(fields)
            options = drop_habits(fields, type(self).model_fields, type(self).__name__)
            try:
                super().__init__(**choose_source(_read_numbers(options)))
            except ValidationError as error:
                raise SettingError(_first_problem(error)) from error
            # Left to __getattr__: a profile needs the model, which nothing may load while chat models are made.
            if vars(self).get("profile") is None:
                vars(self).pop("profile", None)

        def __getattr__(self, name: str) -> Any:
            return profile_of(self.open().family) if name == "profile" else super().__getattr__(name)

    def model_post_init(self, context: Any) -> None:
        """Make the chat. Nothing is loaded."""
        super().model_post_init(context)
        limits = Limits(self.max_conversations, self.max_bytes, self.max_string)
        trace = self.trace if isinstance(self.trace, Trace | None) else Trace(self.trace)
        self._chat = Chat(
            self.kamera, self.model, self.model_kwargs, limits, metrics=self.metrics, trace=trace, guard=self.guard
        )

    def open(self) -> Kamera:
        """Load the model now, if it is not loaded yet, and return the Kamera that answers.

        Raises ModelError for a model that cannot be loaded, SettingError where another chat model has loaded it with
        other options, and StoreClosedError after close().
        """
        return self._chat.open().kamera

    def close(self) -> None:
        """Release the windows and the loaded models. Idempotent. A Kamera that was passed in stays open."""
        self._chat.close()

    @property
    def model_name(self) -> str:
        """Id or folder of the checkpoint, or "pocket"."""
        return self._chat.model_name

    @property
    def is_encrypted(self) -> bool:
        """Whether the store on the disk is encrypted. Loads nothing."""
        return self._chat.is_encrypted

    @property
    def _llm_type(self) -> str:
        return "kamera"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("max_tokens", *SAMPLING)}
        return {"model_name": self.model_name, **options}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: dumpd and dumps write the model and the options, but no Kamera, trace, metrics or open store."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The model and its options, also where a Kamera was passed in."""
        return {"model": self.model_name, "model_kwargs": written_down(self._chat.options)}

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """As LangChain does. A model without a name cannot be loaded again and is marked so."""
        return super().to_json() if self.model_name else self.to_json_not_implemented()

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, by the tokenizer of the model. Loads the model, if it is not loaded yet.

        Raises InputError for another type.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return [*self.open().family.tokens.encode(readable(text))]

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any] | type | Callable[..., Any]] | None = None
    ) -> int:
        """The tokens that an answer to these messages has as its input: markup, images and tools included.

        Loads the model, if it is not loaded yet. A screenshot that ScreenWindow holds in its folder is not counted; its
        edit() gives the messages with those that are shown.
        Raises InputError for messages that cannot be shown to the model.
        """
        described = describe_tools(tools or ())
        shown = [read_message(without_ids(message)) for message in listed(messages)]
        return self._chat.count_tokens(shown, described) if shown else 0

    def count_image_tokens(self, image: bytes) -> int:
        """Tokens of an encoded image in a window. Raises ImageError."""
        return self._chat.count_image_tokens(image)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools that the model may call.

        tool_choice: "auto" leaves it to the model. "any", "required" or True force a call, and a name forces a call of
        that tool, through constrained decoding. "none" forbids calls; the model sees the tools all the same.
        Raises InputError for a tool that cannot be read.
        """
        described = describe_tools(tools)
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
        """Bind a schema that every reply follows, and parse the replies.

        schema: a pydantic class, a TypedDict, a JSON schema or a tool in OpenAI's form. With every method, decoding is
        constrained to it; strict changes nothing.
        method: with "function_calling" the model calls a tool of that schema. With "json_schema" and "json_mode" it
        writes JSON without having seen the schema, so describe it in the prompt. "json_mode" without a schema gives any
        JSON object.
        include_raw: return a dict with "raw", "parsed" and "parsing_error" instead of the parsed reply.
        A reply that max_tokens cuts off raises OutputParserException, which is "parsing_error" with include_raw.
        Raises InputError for an unknown method, and for a missing schema where one is needed.
        """
        if method not in get_args(Method):
            raise InputError(f"method is {method!r}; use one of {', '.join(get_args(Method))}.")
        drop_habits(kwargs, (), "with_structured_output")
        if schema is None and method != "json_mode":
            raise InputError(f"method={method!r} needs a schema; give one, or use method='json_mode'.")
        # LangSmith shows this entry.
        shown = {"kwargs": {"method": method}, "schema": schema}
        if schema is not None and method == "function_calling":
            tool = titled(schema)
            bound = self.bind_tools([tool], tool_choice="any", ls_structured_output_format=shown)
            return read_call(bound, tool, include_raw=include_raw)
        bound = self.bind(response_format=make_format(schema), ls_structured_output_format=shown)
        return read_json(bound, schema, include_raw=include_raw)

    # LangChain hands no config on to the methods below, and to _stream() not even its metadata.

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        return super().invoke(input, config, **in_run(config, kwargs))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        return await super().ainvoke(input, config, **in_run(config, kwargs))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        return super().stream(input, config, **in_run(config, kwargs))

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        return super().astream(input, config, **in_run(config, kwargs))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(messages, stop, run_manager, never, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # A task that is cancelled does not stop a thread of an executor, where LangChain would run _generate().
        work = aread(lambda cancelled: [self._result(messages, stop, run_manager, cancelled, **kwargs)])
        [result] = [item async for item in work]
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        work = read(lambda cancelled: self._chunks(messages, stop, run_manager, cancelled, **kwargs))
        with closing(work) as chunks:
            for chunk in chunks:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        work = aread(lambda cancelled: self._chunks(messages, stop, run_manager, cancelled, **kwargs))
        async with aclosing(work) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _result(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: RunManager,
        cancelled: Cancelled,
        *,
        model: str | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chat, request = self._chat.over(model), self._request(messages, stop, run_manager, **kwargs)
        with reporting_overflow(), chat.answer(request, cancelled) as stream:
            reply = stream.finish()
        message = make_message(reply, request.parse(reply), chat.model_name)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: RunManager,
        cancelled: Cancelled,
        *,
        model: str | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chat, request = self._chat.over(model), self._request(messages, stop, run_manager, **kwargs)
        reader, chunks = request.reader(), Chunks()
        with reporting_overflow(), chat.answer(request, cancelled) as stream:
            for text in stream:
                for piece in reader.feed(text):
                    yield ChatGenerationChunk(message=chunks.make(piece))
            reply = stream.reply
        for piece in reader.finish(cut=reply.finish_reason == "length"):
            yield ChatGenerationChunk(message=chunks.make(piece))
        message = make_message(reply, reader.parsed, chat.model_name)
        yield ChatGenerationChunk(message=last_chunk(message))

    def _request(
        self,
        messages: Sequence[BaseMessage],
        stop: Sequence[str] | None,
        run_manager: RunManager,
        **given: Any,
    ) -> Request:
        options = drop_habits(given, OPTIONS, "A call")
        defaults = {name: getattr(self, name) for name in ANSWER}
        called = {name: options[name] for name in ANSWER if options.get(name) is not None}
        answer = read_options({**defaults, **called, **({"stop": stop} if stop else {})})
        run = find_run(None, run_manager.metadata if run_manager else None)
        response_format = options.get("response_format")
        return Request(
            [read_message(message) for message in messages],
            conversation=str(options.get("conversation") or run.thread),
            agent=str(options.get("agent") or run.agent),
            tools=describe_tools(options.get("tools") or ()),
            tool_choice=options.get("tool_choice"),
            schema=read_format(response_format) if response_format else None,
            max_tokens=answer.get("max_tokens", MAX_TOKENS),
            stop=answer.get("stop", ()),
            sampling=cast(SamplingOptions, {name: answer[name] for name in SAMPLING if name in answer}),
            expected=[read_message(message, ahead=True) for message in messages],
        )


def _read_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without an answer option that is None, and with numbers of Python."""
    answer = read_options({name: value for name, value in fields.items() if name in ANSWER})
    others = {name: value for name, value in fields.items() if name not in ANSWER}
    bounds = {name: whole(name, value) for name, value in others.items() if name in BOUNDS and value is not None}
    return {**others, **bounds, **answer}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    return f"{name} is {short(problem['input'])}: {problem['msg']}."
