"""wrap() under graphs that were compiled over another model: the Kamera answers, and the graph is as it was."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from kamera_agent import InputError, Kamera
from kamera_agent.agent import ChatKamera, ScreenWindow, wrap

Block = Callable[[int], dict[str, str]]


class Provider(BaseChatModel):
    """Stands for a model behind somebody's interface, bound the way that OpenAI's is."""

    @property
    def _llm_type(self) -> str:
        return "provider"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], parallel_tool_calls=False, **kwargs)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("the provider's"))])


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


PROVIDER = Provider()


def by_global(state: State) -> State:
    return {"messages": [PROVIDER.invoke(state["messages"])]}


def made_on_the_spot(state: State) -> State:
    return {"messages": [Provider().invoke(state["messages"])]}


def bound_to_a_name(state: State) -> State:
    """The name is the provider's; nothing is loaded by it."""
    return {"messages": [PROVIDER.bind(model="the-provider-4").invoke(state["messages"])]}


async def by_await(state: State) -> State:
    return {"messages": [await PROVIDER.ainvoke(state["messages"])]}


def compiled(node: Any, **options: Any) -> Any:
    builder = StateGraph(State).add_node("model", node).add_edge(START, "model")
    return builder.compile(**options)


@pytest.fixture
def window(tmp_path: Path) -> ScreenWindow:
    return ScreenWindow(keep_last=1, folder=tmp_path)


def asked(image_block: Block, *pages: int) -> dict[str, Any]:
    blocks = [block for page in pages for block in ({"type": "text", "text": f"page {page}"}, image_block(page))]
    return {"messages": [HumanMessage([*blocks, {"type": "text", "text": "Where is emil?"}])]}


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


@pytest.mark.parametrize(
    "node", [by_global, made_on_the_spot, bound_to_a_name, by_await], ids=lambda node: node.__name__
)
def test_whatever_model_a_node_calls_the_kamera_answers(
    node: Any, kamera: Kamera, window: ScreenWindow, image_block: Block
) -> None:
    graph = compiled(node)
    ours = wrap(graph, ChatKamera(kamera=kamera, max_tokens=4), window)
    said = asyncio.run(ours.ainvoke(asked(image_block, 1, 2), thread(node.__name__)))["messages"][-1]
    edited = window.edit(asked(image_block, 1, 2)["messages"])
    by_hand = ChatKamera(kamera=kamera, max_tokens=4).invoke(edited, conversation="by hand")
    assert said.text == by_hand.text
    assert said.usage_metadata["input_tokens"] == by_hand.usage_metadata["input_tokens"]
    assert asyncio.run(graph.ainvoke(asked(image_block, 1)))["messages"][-1].text == "the provider's"
    assert Provider().invoke("hello").text == "the provider's"


def test_a_kamera_will_do_and_a_conversation_is_its_thread(
    kamera: Kamera, window: ScreenWindow, image_block: Block
) -> None:
    """The second turn of a thread computes what is new; another thread says what the first one said."""
    ours = wrap(compiled(by_global, checkpointer=InMemorySaver()), kamera, window)
    first = ours.invoke(asked(image_block, 1), thread("a"))["messages"][-1]
    second = ours.invoke({"messages": [HumanMessage("And olga?")]}, thread("a"))["messages"][-1]
    other = ours.invoke(asked(image_block, 1), thread("b"))["messages"][-1]
    assert second.response_metadata["kamera"]["origins"]["kept"] >= first.usage_metadata["input_tokens"] - 2
    assert other.text == first.text
    assert other.usage_metadata["input_tokens"] == first.usage_metadata["input_tokens"]


def test_streams_in_pieces(kamera: Kamera, window: ScreenWindow, image_block: Block) -> None:
    ours = wrap(compiled(by_global), ChatKamera(kamera=kamera, max_tokens=6), window)
    whole = ours.invoke(asked(image_block, 3), thread("whole"))["messages"][-1].text
    pieces = [
        piece.text
        for piece, _ in ours.stream(asked(image_block, 3), thread("pieces"), stream_mode="messages")
        if isinstance(piece, AIMessage)
    ]
    assert "".join(pieces) == whole
    assert len(pieces) > 1


def test_create_agent_gets_look_back(
    kamera: Kamera, window: ScreenWindow, image_block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model calls no tool of its own accord, so a call is put into its mouth; the graph runs it."""

    @tool
    def click(x: int, y: int) -> str:
        """Click."""
        return f"clicked {x} {y}"

    offered: list[list[str]] = []
    shown: list[list[str]] = []
    generate = ChatKamera._generate

    def prompted(self: ChatKamera, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        offered.append([tool["function"]["name"] for tool in options["tools"]])
        blocks = [block for message in messages for block in message.content_blocks]
        shown.append([block["base64"] for block in blocks if block["type"] == "image"])
        if isinstance(messages[-1], ToolMessage):
            return generate(self, messages, *rest, **options)
        call = {"name": "look_back", "args": {"steps": [1]}, "id": "1"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])

    monkeypatch.setattr(ChatKamera, "_generate", prompted)
    ours = wrap(create_agent(Provider(), [click]), ChatKamera(kamera=kamera, max_tokens=4), window)
    ours.invoke(asked(image_block, 1, 2), thread("look"))
    pages = [image_block(page)["base64"] for page in (1, 2)]
    assert offered == [["click", "look_back"]] * 2
    assert shown == [pages[1:], pages]


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
FORMS: dict[str, tuple[list[Any], Any]] = {
    "OpenAI": (
        [{"type": "function", "function": {"name": "click", "parameters": SCHEMA}}],
        {"type": "function", "function": {"name": "click"}},
    ),
    "OpenAI, Responses": (
        [{"type": "function", "name": "click", "parameters": SCHEMA}],
        {"type": "function", "name": "click"},
    ),
    "Anthropic": ([{"name": "click", "input_schema": SCHEMA}], {"type": "tool", "name": "click"}),
    "Anthropic, any": ([{"name": "click", "input_schema": SCHEMA}], {"type": "any", "disable_parallel_tool_use": True}),
    "Bedrock": (
        [{"toolSpec": {"name": "click", "inputSchema": {"json": SCHEMA}}}, {"cachePoint": {"type": "default"}}],
        {"tool": {"name": "click"}},
    ),
    "Bedrock, any": ([{"toolSpec": {"name": "click", "inputSchema": {"json": SCHEMA}}}], {"any": {}}),
    "Google": ([{"type": "function", "function": {"name": "click", "parameters": SCHEMA}}], ["click"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_call_that_was_bound_in_the_form_of_a_provider(kamera: Kamera, window: ScreenWindow, form: str) -> None:
    """Forced there, so it is forced here."""
    tools, choice = FORMS[form]
    bound = PROVIDER.bind(tools=tools, tool_choice=choice)
    ours = wrap(compiled(lambda state: {"messages": [bound.invoke(state["messages"])]}), kamera, window)
    [call] = ours.invoke({"messages": [HumanMessage("Click.")]})["messages"][-1].tool_calls
    assert call["name"] == "click"
    assert type(call["args"]["x"]) is int


@pytest.mark.parametrize(
    ("tools", "choice", "says"),
    [
        ([{"type": "bash_20250124", "name": "bash"}], None, "bash_20250124.*its provider runs"),
        ([{"type": "web_search_preview"}], None, "web_search_preview.*its provider runs"),
        ([{"google_search": {}}], None, "google_search.* is no tool"),
        (FORMS["OpenAI"][0], ["click", "type"], r"tool_choice is \['click', 'type'\]"),
    ],
)
def test_what_only_a_provider_can_do_is_refused(
    kamera: Kamera, window: ScreenWindow, tools: list[Any], choice: Any, says: str
) -> None:
    bound = PROVIDER.bind(tools=tools, tool_choice=choice)
    ours = wrap(compiled(lambda state: {"messages": [bound.invoke(state["messages"])]}), kamera, window)
    with pytest.raises(InputError, match=says):
        ours.invoke({"messages": [HumanMessage("Click.")]})


def test_a_tool_node_keeps_its_ways(kamera: Kamera, window: ScreenWindow) -> None:
    """Its own tools, its way with errors, and the models that tools ask."""

    @tool
    def fail() -> str:
        """Fail."""
        raise ValueError("no luck")

    @tool
    def summarise() -> str:
        """Summarise."""
        return Provider().invoke("all that").text

    calls = [{"name": name, "args": {}, "id": name} for name in ("summarise", "fail")]
    builder = StateGraph(State).add_node("call", lambda state: {"messages": [AIMessage("", tool_calls=calls)]})
    builder.add_node("tools", ToolNode([fail, summarise], handle_tool_errors="it failed"))
    graph = builder.add_edge(START, "call").add_edge("call", "tools").compile()
    for each in (graph, wrap(graph, kamera, window)):
        said = each.invoke({"messages": []})["messages"][-2:]
        assert [(message.text, message.status) for message in said] == [
            ("the provider's", "success"),
            ("it failed", "error"),
        ]


def test_only_the_nodes_that_are_named(kamera: Kamera, window: ScreenWindow, image_block: Block) -> None:
    builder = StateGraph(State).add_node("plan", by_global).add_node("act", made_on_the_spot)
    builder.add_edge(START, "plan").add_edge("plan", "act")
    messages = wrap(builder.compile(), kamera, window, nodes=["act"]).invoke(asked(image_block, 1))["messages"]
    assert [message.text == "the provider's" for message in messages[1:]] == [True, False]


def test_a_node_that_fails_leaves_no_route_open(kamera: Kamera, window: ScreenWindow) -> None:
    def fails(state: State) -> State:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        wrap(compiled(fails), kamera, window).invoke({"messages": []})
    assert PROVIDER.invoke("hello").text == "the provider's"


def test_what_cannot_be_wrapped(kamera: Kamera) -> None:
    with pytest.raises(InputError, match="not a StateGraph; call"):
        wrap(StateGraph(State), kamera)  # type: ignore[type-var]
    with pytest.raises(InputError, match=r"no nodes \['plan'\]; it has \['__start__', 'model'\]"):
        wrap(compiled(by_global), kamera, nodes=["plan"])
