"""The caller does through ChatKamera what it has learned, and what it has learned is not what LangChain's tests say."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from caller.exam import take_exam
from caller.lessons import ANSWER, Course, Teacher
from caller.page import ANCHOR, NOWHERE, make_page
from caller.speech import HELD_OUT_CHARACTERS, HELD_OUT_WORDS
from caller.weights import open_caller
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera

COURSE = Course(tools=2, rounds=3, words=8)


@pytest.fixture(scope="module")
def caller() -> Iterator[Kamera]:
    with open_caller() as kamera:
        yield kamera


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return f"Rain in {location}."


def test_an_agent_calls_its_tool_and_then_answers(caller: Kamera) -> None:
    agent = create_agent(ChatKamera(kamera=caller), [get_weather])
    asked = {"messages": [HumanMessage("What is the weather in San Francisco, CA?")]}
    _, call, _, answer = agent.invoke(asked)["messages"]
    (made,) = call.tool_calls
    assert (made["name"], made["args"]) == ("get_weather", {"location": "San Francisco, CA"})
    assert not answer.tool_calls
    assert answer.text.startswith(f"{ANSWER}Rain in San Francisco, CA")


def test_a_call_that_is_forbidden(caller: Kamera) -> None:
    """The tools stay in the prompt, so neither way computes them again; the model writes something else."""
    chat = ChatKamera(kamera=caller, max_tokens=120)
    auto, none = (chat.bind_tools([get_weather], tool_choice=choice) for choice in ("auto", "none"))
    question = "What is the weather in San Francisco, CA?"
    for turn, bound in enumerate((auto, none, auto, none)):
        reply = bound.invoke(question, conversation="forbidden")
        assert bool(reply.tool_calls) == (bound is auto)
        assert not reply.invalid_tool_calls
        assert "<tool_call>" not in reply.text
        computed = reply.response_metadata["kamera"]["origins"]["computed"]
        assert turn == 0 or computed < 10
    assert none.bind(response_format={"enum": ["yes"]}).invoke(question).text == '"yes"'
    assert not chat.invoke("Hello.", tool_choice="none", max_tokens=2).tool_calls


def test_it_calls_tools_that_it_never_saw(caller: Kamera) -> None:
    """Word for word, out of some hundred words and bytes at every step: half would be no luck."""
    right, asked = take_exam(caller, Course(tools=1, rounds=1, words=8), 24, seed=7)
    assert {*asked} == {"call", "forced call", "refusal", "answer"}
    for kind in asked:
        assert right[kind] > asked[kind] / 2, (kind, right, asked)


def test_lessons_do_not_say_what_langchain_tests() -> None:
    teacher = Teacher(np.random.default_rng(3), COURSE)
    for _ in range(200):
        lesson = teacher.lesson()
        own = [str(tool["function"][part]) for tool in lesson.tools for part in ("name", "description")]
        names = [name for tool in lesson.tools for name in tool["function"]["parameters"]["properties"]]
        said = " ".join([*own, *names, *(message.text for message in lesson.messages)])
        assert HELD_OUT_WORDS.isdisjoint(re.findall("[a-z]+", said.lower()))
        assert HELD_OUT_CHARACTERS.isdisjoint(said)


def test_what_a_reply_repeats_stands_where_it_is_looked_for(caller: Kamera) -> None:
    """A source holds the first character of what repeats it: words and numbers may be cut otherwise there."""
    tokenizer = caller.family.processors.tokenizer
    teacher = Teacher(np.random.default_rng(4), COURSE)
    for _ in range(20):
        page = make_page(caller.family, teacher.lesson())
        pieces = [piece.removeprefix("Ġ") for piece in tokenizer.convert_ids_to_tokens(page.token_ids)]
        for index, (said, source, subject) in enumerate(zip(*page[1:], strict=True)):
            if source != NOWHERE:
                assert said
                assert source < index
                assert pieces[index][:1] in pieces[source]
            if subject != NOWHERE:
                assert said
                assert ANCHOR <= subject < index
