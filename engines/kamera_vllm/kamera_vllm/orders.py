"""What a request asks of the connector, and what the scheduler asks of the worker in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

from kamera_agent.chunk import Key
from kamera_agent.pages.span import Load, Save, row_of

# The name under which an order is among the `kv_transfer_params` of a request.
PARAMETER = "kamera"


class Order(NamedTuple):
    """What a request asks.

    window: an id that the requests of one window share. prompt: digest of the tokens that the request is to have;
        vLLM makes those of an image itself. loads: spans in a row that get KV from the store.
    saves: spans that the store is to keep. continues: whether a longer request of the window follows, which needs the
        KV of the tokens of this one's last block. probe: key under which the KV of the prompt is to be stored.
    """

    window: str
    prompt: str
    loads: tuple[Load, ...] = ()
    saves: tuple[Save, ...] = ()
    continues: bool = False
    probe: str | None = None

    @property
    def claim(self) -> range:
        """The tokens that get their KV from the store."""
        return row_of(self.loads)

    def to_json(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "prompt": self.prompt,
            "loads": [load.to_json() for load in self.loads],
            "saves": [save.to_json() for save in self.saves],
            "continues": self.continues,
            "probe": self.probe,
        }

    @classmethod
    def of(cls, params: Mapping[str, Any] | None) -> Self | None:
        """The order among the parameters of a request; None where there is none."""
        if not params or PARAMETER not in params:
            return None
        facts = params[PARAMETER]
        return cls(
            facts["window"],
            facts["prompt"],
            tuple(map(Load.from_json, facts["loads"])),
            tuple(map(Save.from_json, facts["saves"])),
            facts["continues"],
            facts["probe"],
        )


class Filling(NamedTuple):
    """Pages of a request that the worker fills, before the request is scheduled.

    tokens: those that vLLM is going to take for computed. order: None for exact pages. keys: of exact pages, in order.
    """

    request_id: str
    block_ids: list[int]
    tokens: range
    order: Order | None
    keys: Sequence[Key]


class Keeping(NamedTuple):
    """Pages of a request that the worker reads after the forward pass.

    num_tokens: of the prompt. order: None for exact pages. keys: of its full blocks, in order.
    """

    block_ids: list[int]
    num_tokens: int
    order: Order | None
    keys: Sequence[Key]


@dataclass
class Step(KVConnectorMetadata):
    """What the worker does around one forward pass."""

    fillings: list[Filling] = field(default_factory=list)
    keepings: list[Keeping] = field(default_factory=list)
