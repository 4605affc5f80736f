"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any


class Tokens:
    """A model's tokenizer, with a caller's text and the model's own markup kept apart."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a caller's text, with nothing added.

        Markers in it stay text: a page that contains <|im_end|> must not end a turn.
        """
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

    def markup(self, text: str) -> tuple[int, ...]:
        """Token ids of the model's own markup; markers become special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def opening(self, text: str) -> tuple[int, ...]:
        """Token ids of the markup that begins a window, with the BOS token that the tokenizer itself puts first."""
        added, token_ids = tuple(self._tokenizer("")["input_ids"]), self.markup(text)
        bos = added if added == (self._tokenizer.bos_token_id,) else ()
        # A template may have written it already.
        return token_ids if token_ids[: len(bos)] == bos else bos + token_ids

    def decode(self, token_ids: Sequence[int], *, markup: bool = False) -> str:
        """Text of token ids. Special tokens are left out unless markup is wanted, too."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=not markup))

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text; None where the tokenizer has none."""
        eos_id: int | None = self._tokenizer.eos_token_id
        return eos_id

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of all special tokens."""
        return frozenset(self._tokenizer.all_special_ids)

    @property
    def special_texts(self) -> Sequence[str]:
        """All special tokens as text."""
        texts: Sequence[str] = self._tokenizer.all_special_tokens
        return texts

    @cached_property
    def spaces_are_text(self) -> bool:
        """Whether a word inside a text needs a space written before it; some tokenizers put it there anyway."""
        return self.encode(": word") == self.encode(":") + self.encode(" word")
