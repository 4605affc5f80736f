"""An exam for callers: new lessons, asked through ChatKamera as an agent asks."""

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
    """Numbers of replies that are right word for word, and of all replies, by kind: call, forced call, refusal, answer.

    The messages before a reply are those of the lesson. A call is asked for twice: once free, once forced.
    """
    model = ChatKamera(kamera=kamera, max_tokens=MAX_TOKENS)
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for number in range(num_lessons):
        lesson = Teacher(np.random.default_rng((seed, number)), course).lesson()
        for kind, history, expected in _questions(lesson):
            choice = "any" if kind == "forced call" else "auto"
            reply = model.bind_tools(lesson.tools, tool_choice=choice, conversation=str(number)).invoke(history)
            asked[kind] += 1
            right[kind] += _plain(reply) == _plain(expected)
    return right, asked


def _questions(lesson: Lesson) -> Iterator[tuple[str, Sequence[BaseMessage], AIMessage]]:
    for index, message in enumerate(lesson.messages):
        if not isinstance(message, AIMessage):
            continue
        history = lesson.messages[:index]
        if message.tool_calls:
            yield "call", history, message
            yield "forced call", history, message
        else:
            yield "refusal" if message.text == NO_TOOL else "answer", history, message


def _plain(message: AIMessage) -> str:
    return str(message.response_metadata[METADATA].get(SAID, message.text))
