"""Tokens as our tokenizer and images count them, the profile of a model, and windows that are too long."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import langchain_core.language_models.base
import pytest
from caller.weights import open_caller
from langchain.agents import create_agent
from langchain.agents.middleware import ClearToolUsesEdit, ContextEditingMiddleware, SummarizationMiddleware
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool

from kamera_agent import InputError, Kamera, KameraError, WindowTooLongError
from kamera_agent.agent import ChatKamera, ScreenWindow
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.telemetry.trace import read_trace

Block = Callable[[int], dict[str, str]]

pytestmark = pytest.mark.filterwarnings("ignore:.*middleware.*:UserWarning")


@pytest.fixture(autouse=True)
def no_other_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain would fetch GPT-2's."""
    monkeypatch.setattr(langchain_core.language_models.base, "get_tokenizer", None)


@pytest.fixture(scope="module")
def caller() -> Iterator[Kamera]:
    with open_caller() as kamera:
        yield kamera


@tool
def weather(location: str) -> str:
    """Get the weather at a location."""
    return f"Rain in {location}."


def conversations(image_block: Block) -> list[list[BaseMessage]]:
    question = HumanMessage([image_block(1), {"type": "text", "text": "Where is <|im_end|> anna?"}])
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"location": "here"}, "id": "1"}])
    return [
        [HumanMessage("hello")],
        [SystemMessage("You look at pictures."), question],
        [question, AIMessage("barn"), HumanMessage([image_block(2)])],
        [HumanMessage("hello"), call, ToolMessage("Rain in here.", tool_call_id="1")],
    ]


@pytest.mark.parametrize("tools", [[], [weather]])
def test_a_count_is_the_input_of_an_answer(caller: Kamera, image_block: Block, tools: Sequence[Any]) -> None:
    chat = ChatKamera(kamera=caller, max_tokens=1)
    bound = chat.bind_tools(tools)
    for number, messages in enumerate(conversations(image_block)):
        reply = bound.invoke(messages, conversation=f"{bool(tools)} {number}")
        assert reply.usage_metadata is not None
        assert chat.get_num_tokens_from_messages(messages, tools) == reply.usage_metadata["input_tokens"]
    assert chat.get_num_tokens_from_messages([]) == 0


def test_a_text_counts_as_in_a_window(kamera: Kamera) -> None:
    chat, window = ChatKamera(kamera=kamera), kamera.window()
    for text in ("Where is anna?", "ü <|im_start|> !"):
        span_id = window.add_text(text)
        [span] = [span for span in window.spans if span.id == span_id]
        assert chat.get_num_tokens(text) == span.num_tokens


def test_langchain_trims_and_edits_by_these_counts(caller: Kamera) -> None:
    chat = ChatKamera(kamera=caller, max_tokens=4)
    messages = [HumanMessage("hello"), AIMessage("x"), HumanMessage("there")]
    limit = chat.get_num_tokens_from_messages(messages[1:])
    assert trim_messages(messages, max_tokens=limit, token_counter=chat) == messages[1:]
    edits = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=20)], token_count_method="model")
    agent = create_agent(chat, [weather], middleware=[edits])
    assert agent.invoke({"messages": [("user", "hello")]})["messages"][-1].text


def test_screens_in_the_folder_are_counted_where_they_are_shown(
    kamera: Kamera, image_block: Block, tmp_path: Path
) -> None:
    chat, window = ChatKamera(kamera=kamera, max_tokens=1), ScreenWindow(keep_last=2, folder=tmp_path)
    asked = [HumanMessage([image_block(number), {"type": "text", "text": "hello"}]) for number in range(4)]
    state = window.before_agent({"messages": [*asked]}, None)  # type: ignore[typeddict-item, arg-type]
    assert state is not None
    plain = [HumanMessage([{"type": "text", "text": "hello"}]) for _ in asked]
    assert chat.get_num_tokens_from_messages(state["messages"]) == chat.get_num_tokens_from_messages(plain)
    shown = window.edit(state["messages"], chat)
    reply = chat.invoke(shown, conversation="counted")
    assert reply.usage_metadata is not None
    assert chat.get_num_tokens_from_messages(shown) == reply.usage_metadata["input_tokens"]


def test_the_profile_is_that_of_the_model(caller: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = ChatKamera(kamera=caller).profile
    assert profile is not None
    assert profile["max_input_tokens"] == caller.family.decoder.max_positions
    assert (profile["image_inputs"], profile["tool_calling"]) == (True, True)
    SummarizationMiddleware(model=ChatKamera(kamera=caller), trigger=("fraction", 0.8))
    assert ChatKamera(kamera=caller, profile={"max_input_tokens": 5}).profile == {"max_input_tokens": 5}


def test_the_profile_loads_the_model_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatKamera(model="pocket", model_kwargs={"store": None}) as chat:
        with monkeypatch.context() as patch:
            patch.setattr(Kamera, "from_pretrained", None)
            repr(chat)
            chat.model_copy()
            chat.configurable_fields(max_tokens=ConfigurableField("length")).with_config(
                {"configurable": {"length": 1}}
            )
        assert chat.profile is not None
        assert chat.profile["image_inputs"]
        with pytest.raises(AttributeError, match="nothing"):
            chat.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_model_whose_template_has_no_tools(kamera: Kamera) -> None:
    profile = ChatKamera(kamera=kamera).profile
    assert profile is not None
    tools = [{"name": "look", "parameters": {}}]
    try:
        ChatKamera(kamera=kamera, max_tokens=1).bind_tools(tools).invoke("hello")
    except InputError:
        assert not profile["tool_calling"]
    else:
        assert profile["tool_calling"]


@pytest.fixture
def short() -> Iterator[Kamera]:
    model = build_model()
    model.config.get_text_config().max_position_embeddings = 64
    with Kamera(model, build_processor()) as kamera:
        yield kamera


def test_a_window_that_is_too_long_is_langchains_error_as_well(short: Kamera) -> None:
    chat = ChatKamera(kamera=short)
    for ask in (chat.invoke, lambda text: [*chat.stream(text)]):
        with pytest.raises(ContextOverflowError, match=r"built for 64.*ScreenWindow.*trim_messages") as caught:
            ask("long " * 600)
        assert isinstance(caught.value, WindowTooLongError)
        assert isinstance(caught.value, KameraError)


def test_a_trace_may_be_a_path(kamera: Kamera, tmp_path: Path) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=1, trace=str(tmp_path / "t.jsonl"))
    chat.invoke("hello", conversation="traced")
    chat.configurable_fields(max_tokens=ConfigurableField("length")).invoke("hello", {"configurable": {"length": 2}})
    records = read_trace(tmp_path / "t.jsonl")
    assert [record.conversation for record in records] == ["traced", ""]


def test_it_is_an_alternative_to_another_model(kamera: Kamera) -> None:
    """LangChain's public way to a model by name; init_chat_model has a fixed list of providers."""
    from langchain_core.language_models import FakeListChatModel

    model = FakeListChatModel(responses=["fake"]).configurable_alternatives(
        ConfigurableField("model"), default_key="fake", local=ChatKamera(kamera=kamera, max_tokens=4)
    )
    assert model.invoke("hello").text == "fake"
    local = model.invoke("hello", {"configurable": {"model": "local"}})
    assert local.response_metadata["model_name"] == "pocket"
