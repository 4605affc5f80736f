"""Puts a ChatKamera and a ScreenWindow under a graph that is compiled already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from pydantic import ConfigDict

from kamera_agent.agent.chat_model import OPTIONS, ChatKamera
from kamera_agent.agent.look_back import WithLookBack
from kamera_agent.agent.middleware import ScreenWindow
from kamera_agent.agent.route import route
from kamera_agent.agent.screens import LOOK_BACK
from kamera_agent.errors import InputError
from kamera_agent.kamera import Kamera
from kamera_agent.turns.tool_calls import read_choice

Graph = TypeVar("Graph", bound=CompiledStateGraph[Any, Any, Any, Any])


def wrap(
    graph: Graph,
    kamera: Kamera | ChatKamera,
    window: ScreenWindow | None = None,
    *,
    nodes: Collection[str] | None = None,
) -> Graph:
    """The same graph over a Kamera: whatever chat model its nodes call, the Kamera answers.

    graph: what create_agent or StateGraph.compile gave; it is not changed. kamera: a ChatKamera brings its own limits
    and trace. window: which screenshots the model sees; the newest three by default. The agent's state is its own and
    goes on holding pixels. nodes: only these are put over the Kamera; all of them by default.

    Where a ToolNode runs the tools, look_back is one of them; models that tools call are left to them. A model that is
    no LangChain chat model is not seen.
    Raises InputError for what is no compiled graph, and for a node that it does not have.
    """
    if not isinstance(graph, CompiledStateGraph):
        raise InputError(f"wrap takes a compiled graph, not a {type(graph).__name__}; call .compile() first.")
    if unknown := set(nodes or ()) - graph.nodes.keys():
        raise InputError(f"The graph has no nodes {sorted(unknown)}; it has {sorted(graph.nodes)}.")
    window = window or ScreenWindow()
    chat = kamera if isinstance(kamera, ChatKamera) else ChatKamera(kamera=kamera)
    tool_nodes = {name: node.bound for name, node in graph.nodes.items() if isinstance(node.bound, ToolNode)}
    [look_back] = window.tools
    model = WindowedChat(chat=chat, window=window, offers_look_back=bool(tool_nodes))
    wrapped: dict[str, Any] = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if name in tool_nodes:
            if LOOK_BACK not in tool_nodes[name].tools_by_name:
                wrapped[name] = node.copy({"bound": WithLookBack(tool_nodes[name], look_back)})
        elif nodes is None or name in nodes:
            wrapped[name] = node.copy({"bound": Routed(node.bound, model)})
    return graph.copy({"nodes": wrapped})


class WindowedChat(BaseChatModel):
    """A ChatKamera that sees what a ScreenWindow shows it, and takes calls that were bound to another model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    chat: ChatKamera
    window: ScreenWindow
    offers_look_back: bool

    @property
    def _llm_type(self) -> str:
        return self.chat._llm_type

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        shown = self.window.edit(messages, self.chat)
        return self.chat._generate(shown, stop, run_manager, **self._options(kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        shown = self.window.edit(messages, self.chat)
        return self.chat._stream(shown, stop, run_manager, **self._options(kwargs))

    def _options(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        """What was bound to another model, as ChatKamera takes it, without what only that model's provider knows."""
        options = {name: value for name, value in bound.items() if name in OPTIONS}
        tools = [convert_to_openai_tool(tool) for tool in bound.get("tools") or ()]
        if tools and self.offers_look_back and LOOK_BACK not in (tool["function"]["name"] for tool in tools):
            tools += [convert_to_openai_tool(tool) for tool in self.window.tools]
        return options | {"tools": tools, "tool_choice": read_choice(bound.get("tool_choice"))}


class Routed(Runnable[Any, Any]):
    """A node whose chat models are answered for by one model."""

    def __init__(self, bound: Runnable[Any, Any], model: BaseChatModel) -> None:
        self._bound, self._model = bound, model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with route(self._model):
            return self._bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with route(self._model):
            return await self._bound.ainvoke(input, config, **kwargs)
