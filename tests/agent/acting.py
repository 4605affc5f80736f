"""A chat model that acts by a script, and what its replies cost."""

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from kamera_agent.agent import ChatKamera


class Acting(ChatKamera):
    """Makes the calls of a script, one after each question, where it has the tool. All else is the model's own."""

    script: list[dict[str, Any]] = Field(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        step = sum(isinstance(message, HumanMessage) for message in messages) - 1
        tools = [described["function"]["name"] for described in options.get("tools") or ()]
        if isinstance(messages[-1], ToolMessage) or not self.script or self.script[step]["name"] not in tools:
            return super()._generate(messages, *rest, **options)
        call = self.script[step] | {"id": f"call{step}"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])


def computed(message: AnyMessage) -> int:
    return int(message.response_metadata["kamera"]["origins"]["computed"])


def total(message: AnyMessage) -> int:
    assert isinstance(message, AIMessage)
    assert message.usage_metadata
    return message.usage_metadata["input_tokens"]
