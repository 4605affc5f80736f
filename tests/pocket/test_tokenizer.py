"""The tokenizer: whole words for the vocabulary, bytes for everything else."""

import json

import pytest

from kamera_agent.pocket.tokenizer import MARKERS, build_tokenizer
from kamera_agent.pocket.words import WORDS

TEXTS = {
    "question": "Which key does the owner of the lamp need?",
    "json": json.dumps({"action": "click", "at": [12, 480], "text": 'naïve\n\t"quoted"'}),
    "other scripts": "日本語 и русский",
    "emoji": "\N{GRINNING FACE}",
    "spaces": "  two  spaces ",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_text_comes_back(text: str) -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("before", ["", " "], ids=["at the start", "after a space"])
def test_a_word_is_one_token(before: str) -> None:
    tokenizer = build_tokenizer()
    for word in WORDS:
        assert len(tokenizer(before + word, add_special_tokens=False)["input_ids"]) == 1


def test_every_byte_has_a_token() -> None:
    tokenizer = build_tokenizer()
    codes = {tokenizer(chr(code), add_special_tokens=False)["input_ids"][0] for code in range(128)}
    assert len(codes) == 128


def test_markers_in_a_text_are_text_where_that_is_asked_for() -> None:
    tokenizer = build_tokenizer()
    for marker in MARKERS:
        split = tokenizer(marker, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert len(split) > 1
        assert tokenizer(marker, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(marker)]
