"""The agent's chat model: the oracle acts, and the model under test answers questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, PrivateAttr

from examples.ui_agent.oracle import Move
from examples.ui_agent.sight import in_sight
from examples.ui_agent.turn import Arm, Turn


@dataclass(frozen=True, slots=True)
class Record:
    """A step: the move, digests of the screenshots in sight after it, and the model's answer to the question."""

    move: Move
    screens: tuple[str, ...]
    turn: Turn


class Actor(BaseChatModel):
    """Asks the arm each move's question about the screenshots in sight, then makes the oracle's next move.

    Answers are recorded but do not enter the conversation, so the screens that follow do not depend on them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    arm: Any  # an Arm
    moves: Any  # an AsyncIterator[Move]
    max_steps: int | None = None

    _records: list[Record] = PrivateAttr(default_factory=list)
    _made: Move | None = PrivateAttr(default=None)

    @property
    def records(self) -> list[Record]:
        """All steps so far."""
        return self._records

    @property
    def _llm_type(self) -> str:
        return "oracle"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Return self: the oracle already knows the tools."""
        return self

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self._made:
            await self._ask(self._made, messages)
        moves: AsyncIterator[Move] = self.moves
        done = len(self._records) == self.max_steps
        self._made = None if done else await anext(moves, None)
        if self._made is None:
            return _say(AIMessage("Done."))
        call = {"name": self._made.tool, "args": self._made.arguments, "id": f"step{len(self._records) + 1}"}
        return _say(AIMessage("", tool_calls=[call]))

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("The browser is asynchronous; call ainvoke.")

    async def _ask(self, move: Move, messages: Sequence[BaseMessage]) -> None:
        last = messages[-1]
        if isinstance(last, ToolMessage) and last.status == "error":
            raise RuntimeError(f"{move.tool}({move.arguments}) failed: {last.text}")
        arm: Arm = self.arm
        screens = in_sight(messages)
        turn = await asyncio.to_thread(arm.answer, screens, move.question)
        self._records.append(Record(move, tuple(blake3(data).hexdigest() for data in screens), turn))


def _say(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
