"""Grammars against texts made by hand."""

from typing import Any

import pytest
import torch
from models import count_passes

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


TOOL = {
    "type": "function",
    "function": {
        "name": "click",
        "parameters": {
            "type": "object",
            "properties": {"target": {"type": "string"}, "button": {"enum": ["left", "right"]}},
            "required": ["target", "button"],
            "additionalProperties": False,
        },
    },
}


def test_forced_tokens_are_allowed_one_by_one(kamera: Kamera) -> None:
    """What is forced is the text up to the first choice, and the grammar goes on after it."""
    tokenizer = kamera.family.processors.tokenizer
    matcher = Grammars(tokenizer).calls([TOOL])
    forced = [*matcher.forced()]
    assert tokenizer.decode(forced) == '<tool_call>\n{"name":"click","arguments":{"target":"'
    for token in forced:
        assert matcher.mask(torch.zeros(1 << 16))[token] == 0
        matcher.accept(token)
    assert [*matcher.forced()] == []


def test_a_forced_stretch_takes_one_pass(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. A call whose tokens come one by one, from a constraint that does not say what it forces. 2. The same text in
    fewer passes."""
    grammars = Grammars(kamera.family.processors.tokenizer, max_string=6)
    sizes = count_passes(kamera, monkeypatch)
    texts, passes = [], []
    for constraint in (Silent(grammars.calls([TOOL])), grammars.calls([TOOL])):
        window = kamera.window()
        window.add_text("Click.")
        sizes.clear()
        with window.stream(max_tokens=120, constraint=constraint) as stream:
            texts.append(stream.finish().text)
        passes.append(len(sizes))
        assert window.spans[-1].num_tokens <= sum(sizes)
        window.check_integrity()
        assert float((window.logits() - window.reference_logits()).abs().max()) <= 1e-3
    assert texts[0].startswith('<tool_call>\n{"name":"click","arguments":{"target":"')
    assert texts[1].startswith('<tool_call>\n{"name":"click","arguments":{"target":"')
    assert passes[1] < passes[0] / 2


class Silent:
    """A constraint that does what another one does, and does not tell what it forces."""

    def __init__(self, inner: Any) -> None:
        self.mask, self.accept = inner.mask, inner.accept
