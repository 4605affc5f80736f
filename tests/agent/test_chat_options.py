"""Options of ChatKamera and of its calls: those of its own, those of other providers, and those that nobody has."""

import logging
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import ConfigurableField

from kamera_agent import InputError, Kamera
from kamera_agent.agent import ChatKamera
from kamera_agent.turns.source import ENVIRONMENT

QUESTION = "Where is anna?"

# Passed by LangChain's agents, middleware and by code that was written for other providers.
HABITS: dict[str, Any] = {
    "parallel_tool_calls": False,
    "strict": True,
    "stream_options": {"include_usage": True},
    "user": "me",
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logprobs": False,
    "top_logprobs": None,
    "timeout": 30,
    "cache_control": {"type": "ephemeral"},
}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def test_habits_change_nothing_and_are_logged(kamera: Kamera, caplog: pytest.LogCaptureFixture) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=4)
    with caplog.at_level(logging.DEBUG, "kamera_agent"):
        plain, called = chat.invoke(QUESTION), chat.invoke(QUESTION, **HABITS)
        bound = chat.bind(**HABITS).invoke(QUESTION)
    assert called.text == bound.text == plain.text
    assert "parallel_tool_calls" in caplog.text
    assert {record.levelname for record in caplog.records if "ignores" in record.message} == {"DEBUG"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 2}, "cannot serve n=2"),
        ({"logprobs": True}, "cannot serve logprobs=True"),
        ({"frequency_penalty": 0.5}, "cannot serve frequency_penalty=0.5"),
        ({"logit_bias": {5: -100}}, "cannot serve logit_bias"),
        ({"max_token": 5}, "did you mean 'max_tokens'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 3, "max_new_tokens": 4}, "max_tokens and another name"),
        ({"stop": [""]}, "stop has ''"),
        ({"extra_body": {"guided": "x" * 10**6}}, "cannot serve extra_body"),
    ],
)
def test_a_call_that_cannot_be_served_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    monkeypatch.setattr(Kamera, "from_pretrained", None)
    with ChatKamera(model="pocket") as chat:
        for ask in (chat.invoke, lambda *args, **kwargs: [*chat.stream(*args, **kwargs)]):
            with pytest.raises(InputError, match=message) as caught:
                ask(QUESTION, **options)
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1, "seed": 3},
        {"temperature": np.float32(1), "seed": np.int64(3)},
        {"temperature": 1.0, "seed": 3, "top_p": None, "top_k": None, "max_tokens": None, "stop": None},
    ],
)
def test_numbers_are_numbers_in_the_model_and_in_a_call(kamera: Kamera, options: dict[str, Any]) -> None:
    expected = kamera.window().generate(QUESTION, temperature=1.0, seed=3).text
    assert ChatKamera(kamera=kamera, **options).invoke(QUESTION, conversation="a").text == expected
    assert ChatKamera(kamera=kamera).invoke(QUESTION, conversation="b", **options).text == expected


def test_a_stop_word_is_a_word(kamera: Kamera) -> None:
    """Not its letters: the reply has an r."""
    whole = kamera.window().generate(QUESTION).text
    assert "r" in whole
    for words in ("rest", ["rest"], ("rest",)):
        assert ChatKamera(kamera=kamera).invoke(QUESTION, stop=words, conversation="c").text == whole
        assert ChatKamera(kamera=kamera, stop=words).invoke(QUESTION, conversation="c").text == whole
    assert ChatKamera(kamera=kamera, stop="r").invoke(QUESTION, conversation="c").text == whole.split("r")[0]


def test_other_names_of_an_option(kamera: Kamera) -> None:
    for name in ("max_tokens", "max_new_tokens", "max_completion_tokens"):
        assert ChatKamera(kamera=kamera, **{name: 1}).max_tokens == 1
        reply = ChatKamera(kamera=kamera).invoke(QUESTION, conversation="d", **{name: 1})
        assert reply.usage_metadata is not None
        assert reply.usage_metadata["output_tokens"] == 1
    assert ChatKamera(model_name="pocket").model == "pocket"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_token": 5}, "ChatKamera has no option 'max_token'; did you mean 'max_tokens'"),
        ({"fidelity": "exact"}, r"fidelity is an option of loading; give model_kwargs=\{'fidelity'"),
        ({"store": None}, "store is an option of loading"),
        ({"temperature": -1}, "temperature is -1"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"max_conversations": "many"}, "max_conversations is 'many'"),
        ({"stop": [3]}, "stop has 3"),
        ({"n": 2}, "cannot serve n=2"),
        ({"model_kwargs": {"fidelty": "exact"}}, "model_kwargs has no option 'fidelty'"),
        ({"model_kwargs": 5}, "model_kwargs is 5"),
        ({"verbose": "x" * 10**6}, "verbose is 'x"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ChatKamera(**{"model": "pocket", **fields})
    assert len(str(caught.value)) < 400


def test_options_of_loading_become_plain() -> None:
    """Equal options are equal, so that chat models share their model, and can be written down."""
    chat = ChatKamera(model="pocket", model_kwargs={"rank": np.int64(4), "memory_bytes": 2e9, "store": None})
    assert chat.lc_attributes["model_kwargs"] == {"rank": 4, "memory_bytes": 2_000_000_000, "store": None}


def test_fields_are_configurable(kamera: Kamera) -> None:
    chat = ChatKamera(kamera=kamera).configurable_fields(max_tokens=ConfigurableField("length"))
    reply = chat.invoke(QUESTION, {"configurable": {"length": 1}})
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 1
