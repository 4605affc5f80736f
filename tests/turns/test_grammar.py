"""Grammars against texts made by hand."""

from typing import Any

import pytest
import torch

from kamera_agent import Kamera
from kamera_agent.turns.grammar import OBJECT, Grammars


def admits(grammars: Grammars, schema: Any, token_ids: list[int]) -> bool:
    """Whether a reply may be these tokens and end there."""
    matcher = grammars.json(schema)
    for token in [*token_ids, grammars._hugging_face.eos_token_id]:
        if matcher.mask(torch.zeros(1 << 16))[token] != 0:
            return False
        matcher.accept(token)
    return True


@pytest.mark.parametrize(
    ("text", "anything", "bounded"),
    [
        ("{}", True, True),
        ('{"a":[1,null,{"bc":"x","":{}}],"d":-2.5,"e":true}', True, False),
        ('{"a":[1,null,{"bc":"x"}]}', True, True),
        ('{"abcde":1}', True, False),
        ('{"a":"abcde"}', True, False),
        ('{"a":"abcd","abcd":"abcd"}', True, True),
        ("[1]", False, False),
        ('"a"', False, False),
        ('{"a" 1}', False, False),
        ('{"a":1', False, False),
        ('{"a":1}}', False, False),
        ("{a:1}", False, False),
    ],
)
def test_any_object_is_one(kamera: Kamera, text: str, anything: bool, bounded: bool) -> None:
    """bounded: where strings and names of properties have at most four characters, and names at least one."""
    tokenizer = kamera.family.processors.tokenizer
    token_ids = tokenizer(text, add_special_tokens=False).input_ids
    assert admits(Grammars(tokenizer), OBJECT, token_ids) == anything
    assert admits(Grammars(tokenizer, max_string=4), OBJECT, token_ids) == bounded
