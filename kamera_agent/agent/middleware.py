"""A middleware for create_agent that decides which screenshots the model sees."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from langchain.agents import AgentState
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command

from kamera_agent.agent.chat_model import ChatKamera
from kamera_agent.agent.look_back import look_back_tool
from kamera_agent.agent.pixels import PixelFolder
from kamera_agent.agent.policy import Budget, KeepLast, Policy
from kamera_agent.agent.screens import M, Screen, Stowage, list_screens, looked_back, show
from kamera_agent.config import DEFAULT_STORE, MIB
from kamera_agent.errors import SettingError
from kamera_agent.kamera import Kamera

STUB = "[Screenshot of step {step} is not shown; look_back brings it back.]"
SAME = "[The screen looks as in step {step}.]"
# Images whose tokens are remembered, for a Budget.
MAX_COUNTS = 10_000
DEFAULT_FOLDER = os.path.join(DEFAULT_STORE, "pixels")

Update = dict[str, Any] | None
Answer = ModelResponse[Any]
ToolResult = ToolMessage | Command[Any]


class ScreenWindow(AgentMiddleware[AgentState[Any], Any, Any]):
    """Shows the model a few screenshots and gives the agent a tool, look_back, for the others.

    The state of the agent holds ids; the pixels are in a folder. A screenshot equal to the one before it is not sent
    again; a text refers to the first. look_back shows a screenshot in its old place, where its KV can be recalled,
    until the next screenshot comes.

    policy: KeepLast, Interval or Budget; keep_last=n is short for KeepLast(n). pinned: steps that are always shown.
    stub: the text in place of a screenshot, with {step}. folder, folder_bytes: the folder of the pixels and its bound;
    the least recently shown pixels go first. count_tokens: counts the tokens of an encoded image, for Budget; a
    ChatKamera counts them itself.
    """

    def __init__(
        self,
        keep_last: int = 3,
        *,
        policy: Policy | None = None,
        pinned: Collection[int] = (),
        stub: str = STUB,
        folder: str | os.PathLike[str] = DEFAULT_FOLDER,
        folder_bytes: int = 2048 * MIB,
        count_tokens: Callable[[bytes], int] | None = None,
    ) -> None:
        super().__init__()
        self._policy = policy or KeepLast(keep_last)
        self._pinned = frozenset(pinned)
        self._stub = stub
        self._stowage = Stowage(PixelFolder(folder, folder_bytes))
        self._count_tokens = count_tokens
        self._counts: dict[str, int] = {}
        self._counts_by_kamera: WeakKeyDictionary[Kamera, dict[str, int]] = WeakKeyDictionary()
        self.look_back = look_back_tool(self._stowage)
        self.tools: Sequence[BaseTool] = [self.look_back]

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """Put ids in place of the pixels that the caller sent."""
        stowed = [*map(self._stowage.stow, state["messages"])]
        changed = [new for new, old in zip(stowed, state["messages"], strict=True) if new is not old]
        return {"messages": changed} if changed else None

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """As before_agent, in a thread."""
        return await asyncio.to_thread(self.before_agent, state, runtime)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        """Put ids in place of the pixels that a tool returned."""
        return self._stow(handler(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """As wrap_tool_call; files are written in a thread."""
        return await asyncio.to_thread(self._stow, await handler(request))

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Answer]) -> Answer:
        """Show the model the screenshots that the policy keeps."""
        return handler(request.override(messages=self.edit(request.messages, request.model)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Answer]]
    ) -> Answer:
        """As wrap_model_call; files are read in a thread."""
        messages = await asyncio.to_thread(self.edit, request.messages, request.model)
        return await handler(request.override(messages=messages))

    def edit(self, messages: Sequence[M], model: BaseChatModel | None = None) -> list[M]:
        """The messages as the model sees them. Pixels among them are put into the folder.

        model: counts tokens for a Budget. Raises SettingError for a Budget without token counts.
        """
        stowed = [*map(self._stowage.stow, messages)]
        screens = list_screens(stowed)
        twins = _twins(screens)
        # A repeated screen costs one line of text, so the policy does not count it.
        single = [screen for screen in screens if screen.step not in twins]
        newest = single[self._policy.first(self._sizes(single, model)) :]
        kept = {screen.step for screen in newest} | self._pinned | looked_back(stowed, screens)

        def stub(screen: Screen) -> str:
            shown = twins.get(screen.step)
            return SAME.format(step=shown) if shown in kept else self._stub.format(step=screen.step)

        return show(stowed, screens, kept, self._stowage.folder, stub)

    def _sizes(self, screens: Sequence[Screen], model: BaseChatModel | None) -> list[int]:
        """Tokens of each screenshot; zeros where the policy does not need them."""
        if not isinstance(self._policy, Budget):
            return [0] * len(screens)
        count = model.count_image_tokens if isinstance(model, ChatKamera) else self._count_tokens
        if count is None:
            raise SettingError("A Budget needs token counts: use a ChatKamera, or give ScreenWindow count_tokens.")
        counts = self._counts_by_kamera.setdefault(model.open(), {}) if isinstance(model, ChatKamera) else self._counts
        if len(counts) > MAX_COUNTS:
            counts.clear()
        sizes = []
        for screen in screens:
            size = counts.get(screen.image_id)
            if size is None:
                size = counts[screen.image_id] = count(self._stowage.folder.get(screen.image_id))
            sizes.append(size)
        return sizes

    def _stow(self, result: ToolResult) -> ToolResult:
        if isinstance(result, ToolMessage):
            return self._stowage.stow(result)
        if isinstance(result.update, dict) and "messages" in result.update:
            messages = [*map(self._stowage.stow, result.update["messages"])]
            return replace(result, update={**result.update, "messages": messages})
        return result


def _twins(screens: Sequence[Screen]) -> dict[int, int]:
    """For each step equal to the step before it, the first step of that run of equal screenshots."""
    twins: dict[int, int] = {}
    for before, screen in pairwise(screens):
        if before.image_id == screen.image_id:
            twins[screen.step] = twins.get(before.step, before.step)
    return twins
