"""Made-up words and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kamera_agent.pocket.words import WORDS

Value = str | int
Choice = TypeVar("Choice")

CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
# Latin with accents, Greek, Cyrillic, Hebrew, Devanagari, kana, Chinese, Hangul, emoji.
SCRIPTS = (
    (0xC0, 0x17F),
    (0x391, 0x3C9),
    (0x410, 0x44F),
    (0x5D0, 0x5EA),
    (0x905, 0x939),
    (0x3041, 0x30FE),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0x1F600, 0x1F64F),
)
# Words and characters of LangChain's tests. No lesson has them.
HELD_OUT_WORDS = {"magic", "function", "weather", "location", "input", "unicode", "customer", "san", "francisco"}
HELD_OUT_CHARACTERS = set("你好啊集团こんにちは株式会社")


class Speech:
    """Makes words and values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def value(self, kind: str) -> Value:
        """A value of a JSON type: integer or string."""
        if kind == "integer":
            return int(self._rng.integers(10 ** self._rng.integers(1, 5))) * (-1 if self.chance(0.1) else 1)
        if self.chance(0.5):
            words = [self._word() for _ in range(1 + self._rng.integers(3))]
            words = [word.capitalize() if self.chance(0.6) else word for word in words]
            return " ".join(words) + (f", {self._word()[:2].upper()}" if self.chance(0.2) else "")
        size = 1 + self._rng.integers(12)
        if self.chance(0.3):
            return "".join(self.pick(CONSONANTS + CONSONANTS.upper() + "0123456789-") for _ in range(size))
        return self._foreign(size)

    def _foreign(self, size: int) -> str:
        low, high = SCRIPTS[self._rng.integers(len(SCRIPTS))]
        drawn = [chr(self._rng.integers(low, high + 1)) for _ in range(size)]
        return "".join(character for character in drawn if character not in HELD_OUT_CHARACTERS) or "ü"

    def sentence(self, size: int) -> str:
        """A sentence of size words, the first of them capitalised."""
        return " ".join(self._word() for _ in range(size)).capitalize()

    def filler(self, most: int, known: set[str]) -> str:
        """Up to most words that are not in known, often none."""
        words = [self._word() for _ in range(self._rng.integers(most + 1))]
        return " ".join(word for word in words if word not in known)

    def _word(self) -> str:
        if self.chance(0.3):
            return self.pick(WORDS)
        word = "".join(self._syllable() for _ in range(1 + self._rng.integers(3)))
        return word if word not in HELD_OUT_WORDS else self._word()

    def identifiers(self, most: int) -> list[str]:
        """One to most words for a name."""
        words = [self._word() for _ in range(1 + self._rng.integers(most))]
        return [word for word in words if word.isalpha() and word.islower()] or self.identifiers(most)

    def _syllable(self) -> str:
        return self.pick(CONSONANTS) + self.pick(VOWELS) + self.pick(("", "", *CONSONANTS))

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of the choices."""
        return choices[self._rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        """True with the probability share."""
        return bool(self._rng.random() < share)
