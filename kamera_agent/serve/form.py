"""The form of one reply: what a protocol makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from kamera_agent.serve.errors import Refused, error_of
from kamera_agent.serve.sent import CallForm
from kamera_agent.turns.tool_calls import CallPiece, Piece, new_call_id
from kamera_agent.window.reply import Reply

Json = dict[str, Any]

# Kinds of spans that the store keeps.
CHUNKS = ("image", "frames", "document")


@dataclass(slots=True)
class Call:
    """A call of a reply, as its pieces come. arguments: JSON; none where the model did not finish it."""

    id: str
    name: str = ""
    arguments: str = ""

    def add(self, piece: CallPiece) -> None:
        """Add a piece."""
        self.name += piece.name or ""
        self.arguments += piece.arguments


class Form(ABC):
    """Writes one reply, as events while it is generated, and as a whole once it has ended.

    An event that has a "type" is sent under that name. DONE: data that follows the last event; empty for none.
    texts, calls: of the reply, as they went to the client. reply: once it has ended.
    """

    DONE: ClassVar[str] = ""
    reply: Reply

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[Call] = []

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(self.texts)

    @property
    def forms(self) -> tuple[CallForm, ...]:
        """The calls, as a client sends them back."""
        return tuple(CallForm(call.name, call.arguments, call.id) for call in self.calls)

    def call_of(self, piece: CallPiece) -> Call:
        """The call that a piece belongs to, with the piece; a new one where it is the first."""
        if piece.index == len(self.calls):
            self.calls.append(Call(new_call_id()))
        call = self.calls[piece.index]
        call.add(piece)
        return call

    @abstractmethod
    def opening(self) -> Iterator[Json]:
        """The events before the first piece."""

    @abstractmethod
    def add(self, piece: Piece) -> Iterator[Json]:
        """The events of a piece."""

    def end(self, reply: Reply) -> Iterator[Json]:
        """The events that close what the last pieces have begun. reply: all of it."""
        self.reply = reply
        yield from ()

    @abstractmethod
    def ending(self) -> Iterator[Json]:
        """The last events."""

    @abstractmethod
    def whole(self) -> Json:
        """The reply, once it has ended."""

    def failure(self, refused: Refused) -> Json:
        """The last event of a reply that fails."""
        return error_of(refused)


class Cost(NamedTuple):
    """Tokens of a prompt and of the reply.

    num_cached: of the prompt, those that were not computed. Tokens that were computed again, to refresh what was kept,
    moved or recalled, do not count. num_created: those of computed images and long texts, which the store keeps.
    """

    num_tokens: int
    num_cached: int
    num_created: int
    num_generated: int


def cost_of(reply: Reply) -> Cost:
    """The cost of a reply."""
    num_tokens = reply.plan.num_tokens()
    created = sum(row.num_tokens for row in reply.plan.rows if row.origin == "computed" and row.kind in CHUNKS)
    return Cost(num_tokens, num_tokens - reply.plan.num_computed, created, reply.usage.tokens_generated)


def kamera_of(reply: Reply) -> Json:
    """What no protocol has a place for: the origins of the tokens of the prompt, and the timings."""
    return {
        "origins": reply.usage.origins,
        "refreshed": reply.usage.tokens_refreshed,
        "exact": reply.plan.is_exact,
        "timings": asdict(reply.timings),
    }
