"""Measuring a question twice: answered by Kamera, and by a full prefill of the same window."""

from collections import Counter
from dataclasses import dataclass
from time import perf_counter

from kamera_agent import Kamera, Reply, Window
from kamera_agent.telemetry.drift import divergence


@dataclass(frozen=True, slots=True)
class Turn:
    """Both answers and their costs.

    full_answer: the likeliest first token of the full prefill. full_probability: its probability there.
    moments: id and origin of each group of frames in the window, in order.
    background_ms: the time that Kamera then spent on remembering new chunks.
    kl: KL divergence from the next-token distribution of the full prefill to Kamera's, in nats.
    same_token: whether both have the same likeliest token.
    """

    event: str
    question: str
    reply: Reply
    full_answer: str
    full_probability: float
    moments: tuple[tuple[str, str], ...]
    kamera_ms: float
    background_ms: float
    full_ms: float
    kl: float
    same_token: bool

    @property
    def tokens(self) -> Counter[str]:
        """Number of prompt tokens that were computed, and of the others by the origin of their KV.

        A refreshed moment is computed in part. A full prefill computes all tokens.
        """
        counts: Counter[str] = Counter()
        for row in self.reply.plan.rows:
            computed = round(row.num_computed)
            counts["computed"] += computed
            counts[row.origin] += row.num_tokens - computed
        return counts


class Meter:
    """Asks about a window and keeps the turns. Each question replaces the one before it."""

    def __init__(self, kamera: Kamera, window: Window) -> None:
        self._kamera, self._window = kamera, window
        self.turns: list[Turn] = []

    def ask(self, event: str, question: str, max_tokens: int = 16) -> Turn:
        self._forget_talk()
        reply = self._window.generate(question, max_tokens=max_tokens)
        start = perf_counter()
        # The background work would slow down the next measurement.
        self._kamera.flush()
        background_ms = 1e3 * (perf_counter() - start)
        if reply.span_id:
            self._window.drop(reply.span_id)
        start = perf_counter()
        full = self._window.reference_logits()
        full_token = int(full.argmax())
        full_ms = 1e3 * (perf_counter() - start)
        # The KV of the answer is still in the pool; only the opening of the reply's turn is computed again.
        ours = self._window.logits()
        turn = Turn(
            event=event,
            question=question,
            reply=reply,
            full_answer=self._kamera.family.tokens.decode([full_token]).strip(),
            full_probability=float(full.softmax(-1)[full_token]),
            moments=tuple((row.id, row.origin) for row in reply.plan.rows if row.kind == "frames"),
            kamera_ms=reply.timings.first_token_ms,
            background_ms=background_ms,
            full_ms=full_ms,
            kl=divergence(full, ours),
            same_token=int(ours.argmax()) == full_token,
        )
        self.turns.append(turn)
        return turn

    def _forget_talk(self) -> None:
        for span in self._window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                self._window.drop(span.id)
