"""Watching how far the answers of a conversation drift from full prefills."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import perf_counter

import torch

from kamera_agent.telemetry.drift import Drift, Witness
from kamera_agent.telemetry.guard import Guard
from kamera_agent.window.reply import Reply

logger = logging.getLogger("kamera_agent.guard")

FullPrefill = Callable[[Callable[[], None]], torch.Tensor]


class _GaveWay(Exception):
    """Ends a comparison, because an answer is wanted."""


class Budget:
    """The time that comparisons may take. A comparison may exceed it; then none begins until that is made up for.

    Safe for use from several threads.
    """

    def __init__(self, share: float) -> None:
        """share: of the time that answers take."""
        self._share = share
        self._left_s = 0.0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a comparison may begin."""
        return self._left_s > 0

    def earn(self, seconds: float) -> None:
        """Enter the time that an answer took."""
        with self._lock:
            self._left_s += self._share * seconds

    def spend(self, seconds: float) -> None:
        """Enter the time that a comparison took."""
        with self._lock:
            self._left_s -= seconds


class Watch:
    """Knows how far the answers of a conversation drift, and whether it has fallen back to exact KV.

    Safe for use from several threads.
    """

    def __init__(self, guard: Guard, budget: Budget, conversation: str) -> None:
        self._guard, self._budget, self._conversation = guard, budget, conversation
        self._lock = threading.Lock()
        # Compared answers in a row that have drifted.
        self._num_drifted = 0
        # Answers of this fallback that are still to come, and answers of the next one.
        self._num_exact, self._num_next = 0, guard.patience

    @property
    def has_fallen_back(self) -> bool:
        """Whether the next answer is given from exact KV only."""
        return self._num_exact > 0

    @property
    def is_due(self) -> bool:
        """Whether the next answer is to be compared with a full prefill, unless it is exact."""
        # What was suspicious once is looked at again at once, and made up for later.
        return not self.has_fallen_back and (self._num_drifted > 0 or self._budget.is_open)

    def answered(self, reply: Reply, *, exact_only: bool) -> None:
        """Enter an answer. exact_only: whether it was given in a fallback."""
        self._budget.earn((reply.timings.first_token_ms + reply.timings.decode_ms) / 1e3)
        with self._lock:
            if not (exact_only and self._num_exact):
                return
            self._num_exact -= 1
            if self._num_exact == 0:
                self._num_drifted = self._guard.patience - 1
                logger.info("Conversation %r uses KV again that is not exact.", self._conversation)

    def compare(
        self,
        witness: Witness,
        full_prefill: FullPrefill,
        report: Callable[[Drift | None, float], None],
        gives_way: Callable[[], bool],
    ) -> None:
        """Compare an answer with a full prefill, unless that gives way.

        report: takes the drift, None where it was not measured, and the seconds.
        """

        def tick() -> None:
            if gives_way():
                raise _GaveWay

        drift, start = None, perf_counter()
        try:
            drift = witness.measure(full_prefill(tick))
        except _GaveWay:
            pass
        except Exception:
            logger.exception("An answer of conversation %r could not be compared.", self._conversation)
        seconds = perf_counter() - start
        self._budget.spend(seconds)
        report(drift, seconds)
        if drift:
            self.measured(drift)

    def measured(self, drift: Drift) -> None:
        """Enter the drift of an answer that is not exact, and fall back after too many that have drifted."""
        with self._lock:
            if self._num_exact:
                return
            if drift.kl <= self._guard.threshold:
                self._num_drifted, self._num_next = 0, self._guard.patience
                return
            self._num_drifted += 1
            if self._num_drifted < self._guard.patience:
                return
            self._num_exact, self._num_next = self._num_next, 2 * self._num_next
            logger.warning(
                "Conversation %r has drifted from a full prefill: a KL of %.2g nats at the first token, above the "
                "guard's threshold of %g. It falls back: its next %d answers use exact KV only.",
                self._conversation,
                drift.kl,
                self._guard.threshold,
                self._num_exact,
            )
