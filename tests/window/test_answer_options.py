"""The options of a window's answer: numbers of any kind, one stop word or several, and names that are checked."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Unpack, get_type_hints

import numpy as np
import pytest

from kamera_agent import InputError, Kamera, SettingError, Settings, Window
from kamera_agent.config import SettingOptions
from kamera_agent.window.options import AnswerOptions
from kamera_agent.window.sampler import Sampling, SamplingOptions

QUESTION = "Where is anna?"


@pytest.fixture(scope="module")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": np.float32(0.5), "seed": np.int64(3)}, {"temperature": 0.5, "seed": 3}),
        ({"temperature": 1.0, "seed": 3, "top_p": np.float64(0.5)}, {"temperature": 1.0, "seed": 3, "top_p": 0.5}),
        ({"temperature": 1.0, "seed": 3, "top_k": 5.0}, {"temperature": 1.0, "seed": 3, "top_k": 5}),
        ({"temperature": None, "top_p": None, "top_k": None, "seed": None, "max_tokens": None, "stop": None}, {}),
        ({"max_tokens": np.int32(1)}, {"max_tokens": 1}),
        ({"max_new_tokens": 1}, {"max_tokens": 1}),
        ({"stop": "r"}, {"stop": ["r"]}),
        ({"stop": "rest"}, {}),
    ],
)
def test_equal_options_give_equal_replies(kamera: Kamera, given: Any, plain: Any) -> None:
    """The same options, written as plain Python values. A seed makes both draw the same."""
    plain = {"seed": 7, **plain}
    given = {"seed": 7, **given} if given.get("seed") is None else given
    replies = [kamera.window().generate(QUESTION, **options).text for options in (given, plain)]
    assert replies[0] == replies[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_k": True}, "top_k is True"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": -(2**63) - 1}, "seed is -9223372036854775809"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": float("inf")}, "max_tokens is inf"),
        ({"max_tokens": 3, "max_new_tokens": 4}, "max_tokens is 3 and max_new_tokens is 4"),
        ({"max_token": 3}, "no option 'max_token'; did you mean 'max_tokens'"),
        ({"stop": ["a", ""]}, "stop has ''"),
        ({"stop": 5}, "stop has 5"),
        ({"stop": ["x", "y" * 10**6, 3]}, "stop has 3"),
    ],
)
def test_wrong_options_are_named_before_any_work(kamera: Kamera, options: Any, message: str) -> None:
    window = kamera.window()
    before = window.spans
    with pytest.raises(SettingError, match=message) as caught:
        window.stream(QUESTION, **options)
    assert len(str(caught.value)) < 300
    assert window.spans == before


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"rank": np.int64(4), "error_budget": np.float32(0.5)}, {"rank": 4, "error_budget": 0.5}),
        ({"memory_bytes": 2e9, "disk_bytes": np.int64(5)}, {"memory_bytes": 2_000_000_000, "disk_bytes": 5}),
        ({"fidelity": None, "rank": None}, {}),
    ],
)
def test_settings_take_numbers_as_numbers(given: Any, plain: Any) -> None:
    with Kamera.pocket(**given) as kamera:
        assert kamera.settings == Settings(**plain)
        assert {type(value) for value in vars_of(kamera.settings)} <= {int, float, str, type(None)}


def vars_of(settings: Settings) -> list[Any]:
    return [getattr(settings, field.name) for field in fields(settings)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fidelty": "exact"}, "Kamera has no option 'fidelty'; did you mean 'fidelity'"),
        ({"rank": True}, "rank is True"),
        ({"memory_bytes": "2GB"}, "memory_bytes is '2GB'"),
        ({"byte_budget": False}, "byte_budget is False"),
    ],
)
def test_wrong_settings_are_named(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Kamera.pocket(**options)


def test_type_checkers_see_every_option() -> None:
    assert get_type_hints(SettingOptions) == get_type_hints(Settings)
    assert set(SamplingOptions.__annotations__) == {field.name for field in fields(Sampling)}
    for method in (Kamera.__init__, Kamera.from_pretrained, Kamera.pocket):
        assert get_type_hints(method)["options"] == Unpack[SettingOptions]
    for method in (Window.generate, Window.stream):
        assert get_type_hints(method)["options"] == Unpack[AnswerOptions]
