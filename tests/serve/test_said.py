"""What the server knows of a reply that comes back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamera_agent.serve.said import _shown

PIECES = ["<think>", "</think>", "a", "b ", "<think", "think>"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_text_without_its_reasoning(text: str) -> None:
    """As a pattern takes it out; what is before a closing alone is reasoning that began in the prompt."""
    assert _shown(text) == re.sub("<think>.*?</think>", "", text, flags=re.DOTALL).rpartition("</think>")[2]


@pytest.mark.parametrize("text", ["<think>", "</think>", "<think></think>", "a<think>b"])
def test_a_long_text_takes_no_time(text: str) -> None:
    """A pattern with two ends, which goes on from each opening to the end of the text, would take hours."""
    assert len(_shown(text * 1_000_000)) <= 10 * 1_000_000
