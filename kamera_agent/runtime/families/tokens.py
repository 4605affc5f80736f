"""Text to token ids and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from copy import copy, deepcopy
from functools import cached_property
from typing import Any, Self

from tokenizers import Tokenizer

# Added tokens of this form are markers, even if the tokenizer does not say that they are special: "<tool_call>",
# "</think>". Others, such as rows of spaces, are words.
MARKER = re.compile(r"[<\[].*[>\]]", re.DOTALL)


class Marked(str):
    """A text of which the chat template or the model itself wrote parts. In those, markers are tokens.

    own: the ranges of these parts, in characters.
    """

    own: tuple[range, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]]) -> Self:
        """Join texts, each with whether the template or the model wrote it."""
        texts, own, start = [], [], 0
        for text, is_own in parts:
            if is_own:
                own.append(range(start, start + len(text)))
            elif isinstance(text, Marked):
                own += [range(start + part.start, start + part.stop) for part in text.own]
            texts.append(text)
            start += len(text)
        marked = cls("".join(texts))
        marked.own = tuple(own)
        return marked


class Tokens:
    """A model's tokenizer, with a caller's text and the model's own markup kept apart.

    Two tokenizers do this, one per mode. The mode is a switch on an object that all threads share: with one tokenizer
    for both, a thread would encode a text in the mode of another thread.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._markup, self._text = tokenizer, _text_only(tokenizer)
        added = {
            str(token): id_
            for id_, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
            if not token.special
        }
        # Markers that are not special, with their ids.
        self._markers = {text: id_ for text, id_ in added.items() if MARKER.fullmatch(text)}
        self._marker = re.compile("|".join(map(re.escape, sorted(self._markers, key=len, reverse=True))) or r"(?!)")

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a caller's text, with nothing added.

        Markers in it stay text: a page that contains <|im_end|> must not end a turn. In a Marked text, markers that are
        not special are tokens where they are its own.
        """
        token_ids: list[int] = []
        start = 0
        for marker in self._own_markers(text):
            token_ids += [*self._plain(text[start : marker.start()]), self._markers[marker[0]]]
            start = marker.end()
        return (*token_ids, *self._plain(text[start:]))

    def _own_markers(self, text: str) -> Iterator[re.Match[str]]:
        if isinstance(text, Marked):
            for part in text.own:
                yield from self._marker.finditer(text, part.start, part.stop)

    def _plain(self, text: str) -> Sequence[int]:
        ids: Sequence[int] = self._text(str(text), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def markup(self, text: str) -> tuple[int, ...]:
        """Token ids of the model's own markup; markers become special tokens."""
        return tuple(self._markup(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def opening(self, text: str) -> tuple[int, ...]:
        """Token ids of the markup that begins a window, with the BOS token that the tokenizer itself puts first."""
        added, token_ids = tuple(self._markup("", split_special_tokens=False)["input_ids"]), self.markup(text)
        bos = added if added == (self._markup.bos_token_id,) else ()
        # A template may have written it already.
        return token_ids if token_ids[: len(bos)] == bos else bos + token_ids

    def decode(self, token_ids: Sequence[int], *, markup: bool = False) -> str:
        """Text of token ids. Special tokens are left out unless markup is wanted, too."""
        return str(self._markup.decode(list(token_ids), skip_special_tokens=not markup))

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text; None where the tokenizer has none."""
        eos_id: int | None = self._markup.eos_token_id
        return eos_id

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        return frozenset(self._markup.all_special_ids)

    @property
    def special_texts(self) -> Sequence[str]:
        """All special tokens as text."""
        texts: Sequence[str] = self._markup.all_special_tokens
        return texts

    @cached_property
    def spaces_are_text(self) -> bool:
        """Whether a word inside a text needs a space written before it; some tokenizers put it there anyway."""
        return self.encode(": word") == self.encode(":") + self.encode(" word")


def _text_only(tokenizer: Any) -> Any:
    """The tokenizer in a mode in which every marker stays text."""
    # One in Python takes the mode with each call, and then takes no added token out of a text, special or not.
    if not isinstance(backend := getattr(tokenizer, "_tokenizer", None), Tokenizer):
        return tokenizer
    only = copy(tokenizer)
    only._tokenizer = deepcopy(backend)
    markers = [token for token in backend.get_added_tokens_decoder().values() if MARKER.fullmatch(token.content)]
    only._tokenizer.add_special_tokens(markers)
    only._tokenizer.encode_special_tokens = True
    return only
