"""Prompt lookup: guesses at the next tokens of a reply, from what followed the same tokens before.

Agents repeat what is in the window: names, arguments, lines of a page. A guess is computed in the pass of the token
before it, and costs little where it is wrong (https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Tokens in a row that must have been there before, and how many of the last tokens are searched for them.
NUM_SAME, NUM_SEARCHED = 3, 4096
# Tokens of the first guess and of the longest.
FIRST, LONGEST = 3, 15
# The most tokens that are drawn without a guess, after guesses of which nothing was right.
LONGEST_PAUSE = 64


class Lookup:
    """The tokens of a window and of the reply that is drawn, and guesses at those that follow.

    A guess is longer after one that was right, and comes later after one that was wrong.
    """

    def __init__(self, token_ids: Sequence[int], placeholder_ids: frozenset[int]) -> None:
        """token_ids: the last ones of the window. placeholder_ids: tokens that no reply contains."""
        recent = token_ids[-NUM_SEARCHED:]
        self._token_ids = np.zeros(2 * NUM_SEARCHED, np.int64)
        self._token_ids[: len(recent)] = recent
        self._num_tokens = len(recent)
        self._placeholder_ids = placeholder_ids
        # The last guess: its tokens that were not drawn yet, how many it had, and how many of them were right.
        self._guess: list[int] = []
        self._num_guessed = self._num_right = 0
        self._length, self._pause, self._num_waiting = FIRST, 1, 0

    def push(self, token: int) -> None:
        """Add a token of the reply."""
        if self._num_tokens == len(self._token_ids):
            self._token_ids[:NUM_SEARCHED] = self._token_ids[-NUM_SEARCHED:]
            self._num_tokens = NUM_SEARCHED
        self._token_ids[self._num_tokens] = token
        self._num_tokens += 1
        self._num_waiting = max(0, self._num_waiting - 1)
        if self._guess and token == self._guess.pop(0):
            self._num_right += 1
        else:
            self._guess = []

    def guess(self, most: int) -> list[int]:
        """Tokens that may follow, at most so many; often none."""
        self._learn()
        before = self._token_ids[: self._num_tokens]
        if self._num_waiting or len(before) <= NUM_SAME:
            return []
        same = np.ones(len(before) - NUM_SAME, np.bool_)
        for offset in range(NUM_SAME):
            same &= before[offset : len(same) + offset] == before[len(same) + offset]
        if not same.any():
            return []
        # What followed when they were there last. Where that is all there is, it may go round again.
        followed = before[int(same.nonzero()[0][-1]) + NUM_SAME :]
        guess = np.resize(followed, min(self._length, most)).tolist()
        stop = next((place for place, token in enumerate(guess) if token in self._placeholder_ids), len(guess))
        self._guess = guess[:stop]
        self._num_guessed = stop
        return guess[:stop]

    def _learn(self) -> None:
        if self._num_right:
            self._length, self._pause = min(LONGEST, 2 * self._num_right + 1), 1
        elif self._num_guessed:
            self._length, self._pause = FIRST, min(LONGEST_PAUSE, 2 * self._pause)
            self._num_waiting = self._pause
        self._num_guessed = self._num_right = 0
