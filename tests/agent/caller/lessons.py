"""Lessons: conversations with made-up tools, of random names, words and values.

They teach the format of a call, and the places of its parts in the prompt. A message with a word of the name of a tool
asks for a call of that tool, and its values are the arguments, in order. With several tools, the word is the first one
of the name. The result of a tool is passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from .sayings import MENTION, VALUE, call_of, mark, model_message, user_message
from .speech import Speech, Value

NO_TOOL = "I see no tool for this."
# After a line break, the result has the same tokens as in the tool's message.
ANSWER = "The answer:\n"
PREPOSITIONS = ("in", "of", "at", "for", "to", "from", "on", "by", "with")


class Course(NamedTuple):
    """The size of conversations: the most tools, questions, and words in the description of a tool."""

    tools: int
    rounds: int
    words: int


class Lesson(NamedTuple):
    """A conversation with right replies. tools: in the format of OpenAI."""

    messages: list[BaseMessage]
    tools: list[dict[str, Any]]


class Tool(NamedTuple):
    """A made-up tool. kinds: JSON types of its arguments."""

    words: list[str]
    description: str
    kinds: Mapping[str, str]

    @property
    def name(self) -> str:
        return "_".join(self.words)

    def describe(self) -> dict[str, Any]:
        properties = {name: {"type": kind} for name, kind in self.kinds.items()}
        required = {"required": list(self.kinds)} if self.kinds else {}
        parameters = {"properties": properties, **required, "type": "object"}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


class Teacher:
    """Makes lessons."""

    def __init__(self, rng: np.random.Generator, course: Course) -> None:
        self._rng = rng
        self._speech = Speech(rng)
        self._course = course

    def lesson(self) -> Lesson:
        """A new conversation."""
        tools = [self._tool() for _ in range(1 + self._rng.integers(self._course.tools))]
        messages: list[BaseMessage] = []
        for _ in range(1 + self._rng.integers(self._course.rounds)):
            messages += self._round(tools)
        return Lesson(messages, [tool.describe() for tool in tools])

    def _round(self, tools: list[Tool]) -> list[BaseMessage]:
        tool = tools[self._rng.integers(len(tools))]
        values = {name: self._speech.value(kind) for name, kind in tool.kinds.items()}
        if self._speech.chance(0.25):
            idle = [*values.values()] if self._speech.chance(0.5) else []
            return [self._request(None, idle, tools), model_message(NO_TOOL)]
        question = self._request(tool, [*values.values()], tools)
        call = model_message(call_of(tool.name, values))
        if self._speech.chance(0.4):
            return [question, call]
        result = self._result()
        return [
            question,
            call,
            ToolMessage(result, tool_call_id=call.tool_calls[0]["id"]),
            model_message(ANSWER + result),
        ]

    def _result(self) -> str:
        if self._speech.chance(0.7):
            return str(self._speech.value(self._speech.pick(("string", "integer"))))
        return self._speech.sentence(6) + "."

    def _tool(self) -> Tool:
        words = self._speech.identifiers(3)
        names = ["_".join(self._speech.identifiers(2)) for _ in range(self._speech.pick((0, 1, 1, 1, 2)))]
        description = self._speech.sentence(1 + self._rng.integers(self._course.words)) + "."
        if self._speech.chance(0.3):
            described = [f"        {name}: {self._speech.sentence(4)}." for name in names]
            description += "\n\n    Args:\n" + "\n".join(described)
        return Tool(words, description, {name: self._speech.pick(("string", "string", "integer")) for name in names})

    def _request(self, tool: Tool | None, values: list[Value], tools: list[Tool]) -> HumanMessage:
        """A message of the user: a tool, if any, and values, among words that are not in the name of a tool."""
        speech, known = self._speech, {word for tool in tools for word in tool.words}
        if tool and speech.chance(0.4):
            inside = [self._quoted(value) if isinstance(value, str) else mark(VALUE, value) for value in values]
            parts = [speech.filler(6, known), f"{mark(MENTION, tool.name)}({', '.join(inside)})"]
        else:
            parts = [speech.filler(5, known), self._mention(tool, tools) if tool else ""]
            at_end = bool(values) and speech.chance(0.5)
            for value in values[: len(values) - at_end]:
                in_brackets = speech.chance(0.3)
                parts.append(speech.filler(4, known))
                parts.append(f"({mark(VALUE, value)})" if in_brackets else self._quoted(value))
            if at_end:
                parts += [speech.pick(PREPOSITIONS), mark(VALUE, values[-1])]
                return user_message(" ".join(filter(None, parts)) + speech.pick(("?", ".", "")))
        text = " ".join(filter(None, parts)) + speech.pick(("", "?", ".", f" {speech.filler(4, known)}."))
        return user_message(f"{text} {speech.filler(4, known).capitalize()}." if speech.chance(0.4) else text)

    def _mention(self, tool: Tool, tools: list[Tool]) -> str:
        """The name of the tool or a word of it; with several tools, the name or its first word."""
        words = tool.words if len(tools) == 1 else tool.words[:1]
        return mark(MENTION, self._speech.pick((tool.name, *words)))

    def _quoted(self, value: Value) -> str:
        quote = self._speech.pick("'\"")
        return f"{quote}{mark(VALUE, value)}{quote}"
