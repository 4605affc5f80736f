"""The guard: when answers are compared with full prefills in service, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

from kamera_agent.errors import SettingError
from kamera_agent.options import real, whole


@dataclass(frozen=True, slots=True)
class Guard:
    """How the drift of conversations is watched.

    While no answer is wanted, some answers are compared with full prefills. A conversation that drifts falls back to
    exact KV, as with fidelity="exact", and comes back.

    share: of the computing time of answers, what comparisons may take; above 0 and up to 1.
    threshold: KL divergence of the first token, in nats, above which an answer has drifted; 0 or more.
    patience: compared answers in a row that have drifted before a conversation falls back, and answers that it then
        gives from exact KV. If the next comparison finds drift again, it gives twice as many, and so on.
    Raises SettingError.
    """

    share: float = 0.01
    threshold: float = 0.1
    patience: int = 3

    def __post_init__(self) -> None:
        for name, read in (("share", real), ("threshold", real), ("patience", whole)):
            object.__setattr__(self, name, read(name, getattr(self, name)))
        if not 0 < self.share <= 1:
            raise SettingError(f"share is {self.share}; use a share above 0 and up to 1, or guard=None.")
        if not self.threshold >= 0:
            raise SettingError(f"threshold is {self.threshold}; use 0 nats or more.")
        if self.patience < 1:
            raise SettingError(f"patience is {self.patience}; use 1 or more.")
