"""Questions and replies after the documents of a window, as one run of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.real.documents import Question, Value
from kamera_agent.chunk import TextRun
from kamera_agent.runtime.families.base import Family


class Transcript(NamedTuple):
    """Turns of questions and replies.

    places: of the tokens before those of replies. judged: per question, the reply's tokens that are judged: index into
    places, token id, and the ids that could be there.
    """

    run: TextRun
    places: list[int]
    judged: list[list[tuple[int, int, list[int]]]]


def write(family: Family, questions: Sequence[Question]) -> Transcript:
    """The transcript of questions with the right replies.

    Each token of a value could be any by which a value of the same field goes on: the reply is right if greedy decoding
    among the values of the field gives it.
    """
    encode, turn = family.tokens.encode, family.chat.turn
    token_ids: list[int] = []
    places: list[int] = []
    judged = []
    for question in questions:
        token_ids += [
            *(turn("assistant", "user") if token_ids else ()),
            *encode(question.text),
            *turn("user", "assistant"),
        ]
        tokens = []
        for part in question.reply:
            if isinstance(part, Value):
                ids, pool = encode(f" {part.text}"), [encode(f" {text}") for text in part.pool]
                for place, token in enumerate(ids):
                    going_on = {other[place] for other in pool if other[:place] == ids[:place] and len(other) > place}
                    tokens.append((len(places) + place, token, sorted(going_on)))
            else:
                ids = encode(part)
            places += range(len(token_ids) - 1, len(token_ids) - 1 + len(ids))
            token_ids += ids
        token_ids += encode(".")
        judged.append(tokens)
    return Transcript(TextRun(tuple(token_ids)), places, judged)
