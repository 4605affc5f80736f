"""What a request asks of the connector, and what the scheduler asks of the worker in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

from kamera_agent.chunk import Key
from kamera_agent.pages.span import Load, Save, row_of

# The name under which an order is among the `kv_transfer_params` of a request.
PARAMETER = "kamera"


class Probe(NamedTuple):
    """Tokens whose KV is to be stored for a test.

    id: of the record. first: the number of the first token. positions: [A, T].
    """

    id: str
    first: int
    positions: torch.Tensor

    @property
    def key(self) -> Key:
        """Of the record."""
        return Key.of(kind="probe", id=self.id)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "first": self.first, "positions": self.positions.tolist()}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        return cls(facts["id"], facts["first"], torch.tensor(facts["positions"]))


class Order(NamedTuple):
    """What a request asks.

    window: an id that the requests of one window share. prompt: digest of the tokens that the request is to have;
        vLLM makes those of an image itself. loads: spans in a row that get KV from the store.
    saves: spans that the store is to keep. continues: whether a longer request of the window follows, which needs the
        KV of the tokens of this one's last block.
    """

    window: str
    prompt: str
    loads: tuple[Load, ...] = ()
    saves: tuple[Save, ...] = ()
    continues: bool = False
    probe: Probe | None = None

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
            "probe": self.probe and self.probe.to_json(),
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
            facts["probe"] and Probe.from_json(facts["probe"]),
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
