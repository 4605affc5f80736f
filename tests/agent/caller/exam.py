"""How well a caller does on lessons that it never had, asked as an agent asks: through ChatKamera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from langchain_core.messages import AIMessage, BaseMessage

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera
from kamera_agent.agent.messages import METADATA, SAID

from .lessons import NO_TOOL, Course, Lesson, Teacher

MAX_TOKENS = 160


def take_exam(kamera: Kamera, course: Course, num_lessons: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Replies that were right, word for word, and all, by kind: call, forced call, refusal, answer.

    Before every reply stands what should have been said so far. A call is asked for twice: of the model's own accord,
    and forced.
    """
    model = ChatKamera(kamera=kamera, max_tokens=MAX_TOKENS)
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number in range(num_lessons):
        lesson = Teacher(np.random.default_rng((seed, number)), course).lesson()
        for kind, heard, expected in _questions(lesson):
            choice = "any" if kind == "forced call" else "auto"
            said = model.bind_tools(lesson.tools, tool_choice=choice, conversation=str(number)).invoke(heard)
            asked[kind] += 1
            right[kind] += _plain(said) == _plain(expected)
    return right, asked


def _questions(lesson: Lesson) -> Iterator[tuple[str, Sequence[BaseMessage], AIMessage]]:
    for index, message in enumerate(lesson.messages):
        if not isinstance(message, AIMessage):
            continue
        heard = lesson.messages[:index]
        if message.tool_calls:
            yield "call", heard, message
            yield "forced call", heard, message
        else:
            yield "refusal" if message.text == NO_TOOL else "answer", heard, message


def _plain(message: AIMessage) -> str:
    return str(message.response_metadata[METADATA].get(SAID, message.text))
