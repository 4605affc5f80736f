"""A middleware for create_agent that decides which screenshots the model sees."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from reprlib import repr as short
from string import Formatter
from typing import Annotated, Any, NotRequired, TypeVar, cast
from weakref import WeakKeyDictionary

from langchain.agents import AgentState
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, ToolMessage, convert_to_messages
from langchain_core.tools import BaseTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command

from kamera_agent.agent.chat_model import ChatKamera
from kamera_agent.agent.look_back import look_back_tool
from kamera_agent.agent.messages import listed
from kamera_agent.agent.pixels import PixelFolder
from kamera_agent.agent.screens import M, Screen, Stowage, list_screens, looked_back, replace_screens, show, with_step
from kamera_agent.agent.steps import Numbering, Numberings
from kamera_agent.config import DEFAULT_STORE, MIB
from kamera_agent.errors import SettingError
from kamera_agent.kamera import Kamera
from kamera_agent.options import several, whole
from kamera_agent.secret import SecretSource
from kamera_agent.turns.policy import Budget, KeepLast, Policy

STUB = "[Screenshot of step {step} is not shown; look_back brings it back.]"
SAME = "[The screen looks as in step {step}.]"
# Images whose tokens are remembered, for a Budget.
MAX_COUNTS = 10_000
DEFAULT_FOLDER = os.path.join(DEFAULT_STORE, "pixels")

Update = dict[str, Any] | None
Answer = ModelResponse[Any]
ToolResult = ToolMessage | Command[Any]
# A ToolNode lets tools return lists of both, too.
Result = TypeVar("Result")


class ScreenState(AgentState[Any]):
    """The state of an agent with the highest step so far, which outlives the messages."""

    kamera_steps: NotRequired[Annotated[int, PrivateStateAttr]]


class ScreenWindow(AgentMiddleware[ScreenState, Any, Any]):
    """Shows the model a few screenshots and gives the agent a tool, look_back, for the others.

    The state of the agent holds ids; the pixels are in a folder. A screenshot equal to the one before it is not sent
    again; a text refers to the first. look_back shows a screenshot in its old place, where its KV can be recalled,
    until the next screenshot comes.

    A screenshot gets its step, a number, when it enters the state, and keeps it there when others are removed. A
    screenshot that is no longer stored, or that was never an image, becomes a text that says so.

    policy: KeepLast, Interval or Budget; keep_last=n is short for KeepLast(n). pinned: steps that are always shown.
    stub: the text in place of a screenshot, with {step}. folder, folder_bytes: the folder of the pixels and its bound;
    the least recently shown pixels go first. count_tokens: counts the tokens of an encoded image, for Budget; a
    ChatKamera counts them itself. encryption_key: encrypts the pixels; see Settings. A ChatKamera whose store is
    encrypted is refused without it.
    Raises SettingError or InputError for an option that cannot be used.
    """

    state_schema = ScreenState

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
        encryption_key: SecretSource | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(policy, Policy | None):
            raise SettingError(f"policy is {short(policy)}; use KeepLast, Interval or Budget.")
        if not (count_tokens is None or callable(count_tokens)):
            raise SettingError(f"count_tokens is {short(count_tokens)}; use a function of an encoded image.")
        self._policy = policy or KeepLast(keep_last)
        self._pinned = frozenset(whole("A pinned step", step) for step in several("pinned", pinned))
        self._stub = _checked(stub)
        self._stowage = Stowage(PixelFolder(folder, folder_bytes, encryption_key))
        self._count_tokens = count_tokens
        self._counts: dict[str, int] = {}
        self._counts_by_kamera: WeakKeyDictionary[Kamera, dict[str, int]] = WeakKeyDictionary()
        self._numberings = Numberings()
        self.look_back = look_back_tool(self._stowage, self._numberings)
        self.tools: Sequence[BaseTool] = [self.look_back]

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """Put ids in place of the pixels that the caller sent, and give them steps."""
        return self._take_in(state)

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """As before_agent, in a thread."""
        return await asyncio.to_thread(self._take_in, state)

    def before_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """Give steps to the screenshots that tools returned."""
        # Not when a tool returns: tools run side by side, and do not see the screenshots of each other.
        return self._take_in(state)

    async def abefore_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> Update:
        """As before_model, in a thread."""
        return await asyncio.to_thread(self._take_in, state)

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
        return handler(request.override(messages=self._edit_request(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Answer]]
    ) -> Answer:
        """As wrap_model_call; files are read in a thread."""
        return await handler(request.override(messages=await asyncio.to_thread(self._edit_request, request)))

    def edit(self, messages: Sequence[M], model: BaseChatModel | None = None, *, thread: str | None = None) -> list[M]:
        """The messages as the model sees them. Pixels among them are put into the folder.

        model: counts tokens for a Budget; a ChatKamera is also told what the next call is going to have. thread: a name
        for the conversation, in which every screenshot keeps its step while its message keeps its id, or else its
        content; by default the thread of the run, or else the one that most of the screenshots are known from. Raises
        SettingError for a Budget without token counts, and InputError for
        what is no list of messages.
        """
        return self._edit(messages, model, thread)

    def _edit_request(self, request: ModelRequest[Any]) -> list[Any]:
        state = cast(ScreenState, request.state or {})
        return self._edit(request.messages, request.model, highest=state.get("kamera_steps", 0))

    def _edit(
        self, messages: Sequence[M], model: BaseChatModel | None, thread: str | None = None, highest: int = 0
    ) -> list[M]:
        if isinstance(model, ChatKamera) and model.is_encrypted and not self._stowage.folder.is_encrypted:
            raise SettingError(
                "The store of the ChatKamera is encrypted, and the pixels of this ScreenWindow are not; give it an "
                "encryption_key, too."
            )
        stowed = [*map(self._stowage.stow, listed(messages))]
        screens = self._numberings.number(list_screens(stowed), thread, highest)
        twins = _twins(screens)
        # A repeated screen and one that cannot be read cost one line of text, so the policy does not count them.
        single = [screen for screen in screens if screen.step not in twins and screen.is_readable]
        sizes = self._sizes(single, model)
        always = self._pinned | {screen.step for screen in screens if not screen.is_readable}
        kept = self._newest(single, sizes) | always | looked_back(stowed, screens)
        # Another screenshot is expected, as large as the last one. Only a ChatKamera can make use of that.
        next_kept = self._newest(single, [*sizes, *sizes[-1:]]) | always if isinstance(model, ChatKamera) else kept

        def stub(kept: Collection[int], screen: Screen) -> str | None:
            shown = twins.get(screen.step)
            if screen.step in kept:
                return None
            return SAME.format(step=shown) if shown in kept else self._stub.format(step=screen.step)

        return show(messages, stowed, screens, self._stowage, partial(stub, kept), partial(stub, next_kept))

    def _newest(self, screens: Sequence[Screen], sizes: Sequence[int]) -> set[int]:
        """The steps that the policy shows. sizes: tokens of each screenshot, and of those that are expected."""
        return {screen.step for screen in screens[self._policy.first(sizes) :]}

    def _take_in(self, state: AgentState[Any]) -> Update:
        """Put ids in place of pixels, and give steps to the screenshots that have none."""
        messages: list[Any] = state["messages"]
        stowed = [*map(self._stowage.stow, messages)]
        before = cast(ScreenState, state).get("kamera_steps", 0)
        numbering = Numbering(before)
        screens = list_screens(stowed)
        numbered = numbering.number(screens)
        changed = {new.message for new, old in zip(numbered, screens, strict=True) if new.step != old.step}
        stowed = replace_screens(stowed, [screen for screen in numbered if screen.message in changed], with_step)
        update: dict[str, Any] = {} if numbering.highest == before else {"kamera_steps": numbering.highest}
        if new_messages := [new for new, old in zip(stowed, messages, strict=True) if new is not old]:
            update["messages"] = new_messages
        return update or None

    def _sizes(self, screens: Sequence[Screen], model: BaseChatModel | None) -> list[int]:
        """Tokens of each screenshot; zeros where the policy does not need them."""
        sizes = [0] * len(screens)
        if not isinstance(self._policy, Budget):
            return sizes
        count = model.count_image_tokens if isinstance(model, ChatKamera) else self._count_tokens
        if count is None:
            raise SettingError("A Budget needs token counts: use a ChatKamera, or give ScreenWindow count_tokens.")
        counts = self._counts_by_kamera.setdefault(model.open(), {}) if isinstance(model, ChatKamera) else self._counts
        if len(counts) > MAX_COUNTS:
            counts.clear()
        # From the newest on, until the budget is spent: older ones need not be read, and may be gone.
        for index in reversed(range(len(screens))):
            size = counts.get(screens[index].image_id)
            if size is None and (data := self._stowage.encoded(screens[index])) is not None:
                size = counts[screens[index].image_id] = count(data)
            sizes[index] = size or 0
            if sum(sizes) > self._policy.tokens:
                break
        return sizes

    def _stow(self, result: Result) -> Result:
        """What a tool returned, with ids in place of pixels: a message, a command, or a list of them."""
        if isinstance(result, list):
            return cast(Result, [*map(self._stow, result)])
        if isinstance(result, ToolMessage):
            return self._stowage.stow(result)
        if isinstance(result, Command) and isinstance(result.update, dict) and "messages" in result.update:
            given = result.update["messages"]
            messages = [*map(self._stow_like, given)] if isinstance(given, list) else self._stow_like(given)
            return cast(Result, replace(result, update={**result.update, "messages": messages}))
        return result

    def _stow_like(self, message: object) -> object:
        """A message or a dict of one. Only a dict with pixels becomes a message."""
        if not isinstance(message, (BaseMessage, dict)):
            return message
        [read] = convert_to_messages([message])
        stowed = self._stowage.stow(read)
        return message if stowed is read else stowed


def _checked(stub: str) -> str:
    try:
        names = {name for _, name, *_ in Formatter().parse(stub) if name is not None}
        stub.format(step=1)
    except (LookupError, ValueError, TypeError, AttributeError):
        names = {""}
    if names - {"step"}:
        raise SettingError(f"stub is {short(stub)}; use a text in which {{step}} is the only name.")
    return stub


def _twins(screens: Sequence[Screen]) -> dict[int, int]:
    """For each step equal to the step before it, the first step of that run of equal screenshots."""
    twins: dict[int, int] = {}
    for before, screen in pairwise(screens):
        if before.image_id == screen.image_id and screen.is_readable:
            twins[screen.step] = twins.get(before.step, before.step)
    return twins
