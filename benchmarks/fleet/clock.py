"""How long a turn of the measured machine takes, by what it computes."""

from __future__ import annotations

from itertools import count, islice

import numpy as np

from benchmarks.fleet.agent import RealAgent
from benchmarks.fleet.pages import draw
from benchmarks.fleet.simulation import Turn
from kamera_agent import Kamera


class Clock:
    """Milliseconds to the first token, from the pages that are encoded and the other tokens that are computed.

    Goes through the means of samples: windows of one new page, of three, and of these three in another order. A sample
    is taken beside the turns that it is to explain, so that a busy machine slows both. num_tokens: of a page.
    """

    def __init__(self, kamera: Kamera, num_tokens: int) -> None:
        self._kamera, self._num_tokens = kamera, num_tokens
        self._names = (f"timed {number}" for number in count())
        # Per sample and window: pages encoded, other tokens, milliseconds.
        self._samples: list[list[tuple[int, int, float]]] = []
        self.sample()
        # What it does for the first time takes longer.
        self._samples.clear()

    def sample(self) -> None:
        """Take the time of each window once."""
        pages, agent = [*islice(self._names, 3)], RealAgent(self._kamera, draw)
        one = RealAgent(self._kamera, draw).ask([*islice(self._names, 1)])
        sample = []
        for reply in (one, agent.ask(pages), agent.ask(pages[::-1])):
            num_encoded = reply.usage.encoder_calls
            sample.append(
                (num_encoded, self._others(reply.plan.num_computed, num_encoded), reply.timings.first_token_ms)
            )
        self._samples.append(sample)

    def ms(self, turn: Turn, num_encoded: int) -> float:
        """Of a simulated turn that encodes so many pages."""
        encoded, others, ms = np.mean(self._samples, axis=0).T
        fixed, per_page, per_token = np.linalg.solve(np.stack([np.ones(3), encoded, others], axis=1), ms)
        num_others = self._others(turn.plan.num_computed, num_encoded)
        return float(fixed + num_encoded * per_page + num_others * per_token)

    def _others(self, num_computed: int, num_encoded: int) -> int:
        return num_computed - num_encoded * self._num_tokens
