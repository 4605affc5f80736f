"""Puts a ChatKamera and a ScreenWindow under a compiled graph."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing
from reprlib import repr as short
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from pydantic import ConfigDict

from kamera_agent.agent.chat_model import OPTIONS, ChatKamera
from kamera_agent.agent.look_back import WithLookBack
from kamera_agent.agent.middleware import ScreenWindow
from kamera_agent.agent.route import route
from kamera_agent.agent.screens import LOOK_BACK
from kamera_agent.agent.structured import describe_tool, describe_tools
from kamera_agent.errors import InputError
from kamera_agent.kamera import Kamera
from kamera_agent.options import several
from kamera_agent.turns.tools import read_choice

Graph = TypeVar("Graph", bound=CompiledStateGraph[Any, Any, Any, Any])


def wrap(
    graph: Graph,
    kamera: Kamera | ChatKamera,
    window: ScreenWindow | None = None,
    *,
    nodes: Collection[str] | None = None,
) -> Graph:
    """Return a copy of a graph in which the Kamera answers for every chat model that a node calls.

    graph: from create_agent or StateGraph.compile; it is not changed. kamera: a ChatKamera brings its own limits and
    trace. window: chooses the screenshots that the model sees; the newest three by default. The agent's state keeps
    holding pixels. nodes: the nodes that the Kamera answers for; all by default.

    A ToolNode runs look_back beside its own tools, and models that these call answer themselves. Models that are not
    LangChain chat models are not affected.
    Raises InputError for a graph that is not compiled, for nodes that it does not have, and for other arguments of
    another type.
    """
    if not isinstance(graph, CompiledStateGraph):
        raise InputError(f"wrap takes a compiled graph, not a {type(graph).__name__}; call .compile() first.")
    if not isinstance(window, ScreenWindow | None):
        raise InputError(f"window is {short(window)}; use a ScreenWindow.")
    nodes = None if nodes is None else several("nodes", nodes)
    if unknown := [name for name in nodes or () if name not in graph.nodes]:
        raise InputError(f"The graph has no nodes {unknown}; it has {sorted(graph.nodes)}.")
    window = window or ScreenWindow()
    chat = kamera if isinstance(kamera, ChatKamera) else ChatKamera(kamera=kamera)
    tool_nodes = {name: node.bound for name, node in graph.nodes.items() if isinstance(node.bound, ToolNode)}
    model = WindowedChat(chat=chat, window=window, offers_look_back=bool(tool_nodes))
    wrapped: dict[str, Any] = dict(graph.nodes)
    for name, node in graph.nodes.items():
        # Not routed: models that tools call answer themselves.
        if name in tool_nodes:
            if LOOK_BACK not in tool_nodes[name].tools_by_name:
                wrapped[name] = node.copy({"bound": WithLookBack(tool_nodes[name], window.look_back)})
        elif nodes is None or name in nodes:
            wrapped[name] = node.copy({"bound": Routed(node.bound, model)})
    return graph.copy({"nodes": wrapped})


class WindowedChat(BaseChatModel):
    """A ChatKamera behind a ScreenWindow. It takes options that were bound to another model."""

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

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        shown = await asyncio.to_thread(self.window.edit, messages, self.chat)
        return await self.chat._agenerate(shown, stop, run_manager, **self._options(kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        shown = await asyncio.to_thread(self.window.edit, messages, self.chat)
        async with aclosing(self.chat._astream(shown, stop, run_manager, **self._options(kwargs))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _options(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        """The options bound to another model that ChatKamera knows; options of that model's provider are left out."""
        # A bound model= names the other provider's model. It must not reach ChatKamera, which would load it.
        options = {name: value for name, value in bound.items() if name in OPTIONS}
        tools = describe_tools(bound.get("tools") or ())
        if tools and self.offers_look_back and LOOK_BACK not in (tool["function"]["name"] for tool in tools):
            tools.append(describe_tool(self.window.look_back))
        return options | {"tools": tools, "tool_choice": read_choice(bound.get("tool_choice"))}


class Routed(Runnable[Any, Any]):
    """A node in which one model answers for all chat models."""

    def __init__(self, bound: Runnable[Any, Any], model: BaseChatModel) -> None:
        self._bound, self._model = bound, model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with route(self._model):
            return self._bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        with route(self._model):
            return await self._bound.ainvoke(input, config, **kwargs)
