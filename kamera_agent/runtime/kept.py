"""What the layers of a model keep of a chunk, and what a patch has of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple, Self

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.kernels.reference import product
from kamera_agent.runtime.recurrence import Columns, Inputs, Map, Trace, at, num_bytes, stacked, trace_of

Tensors = tuple[torch.Tensor, ...]


class Kept(NamedTuple):
    """What the layers of a model keep of a chunk.

    kv: per layer with K and V, in the order of the model. trace: of its recurrent layers; None where there are none.
    """

    kv: tuple[LayerKV, ...]
    trace: Trace | None = None

    @classmethod
    def of(cls, layers: Sequence[Tensors], num_kv: int, device: torch.device) -> Self:
        """From the tensors of a record. num_kv: number of the layers with K and V. device: for the trace."""
        trace = trace_of([torch.stack(parts).to(device) for parts in zip(*layers[num_kv:], strict=True)])
        return cls(tuple(LayerKV(*layer) for layer in layers[:num_kv]), trace)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors."""
        trace_bytes = num_bytes(self.trace) if self.trace else 0
        return sum(tensor.nbytes for layer in self.kv for tensor in tensors_of(layer)) + trace_bytes

    @property
    def layers(self) -> list[Tensors]:
        """The tensors per layer, as a record has them: layers with K and V first, and then the recurrent ones."""
        return [*map(tensors_of, self.kv), *(zip(*self.trace, strict=True) if self.trace else ())]

    @property
    def singles(self) -> list[Inputs | Map]:
        """Per recurrent layer that factors can change, its trace."""
        if not isinstance(self.trace, Inputs | Map):
            return []
        return [at(self.trace, slice(layer, layer + 1)) for layer in range(len(self.trace.tail))]

    def patch_layers(self, factors: Sequence[Factors]) -> list[Tensors]:
        """The tensors of a patch per layer, as a record has them.

        factors: of the layers with K and V, and of all recurrent layers or of none of them. A recurrent layer has the
        edge of its trace before its factors.
        """
        of_kv, others = factors[: len(self.kv)], [*map(tensors_of, factors[len(self.kv) :])]
        if self.trace is None:
            return [*map(tensors_of, of_kv)]
        pairs = zip_longest(self.trace.edge, others, fillvalue=())
        return [*map(tensors_of, of_kv), *((edge, *tensors) for edge, tensors in pairs)]

    def retraced(self, layers: Sequence[Tensors]) -> Self:
        """The same with a patch of the recurrent layers. layers: of a record, as by patch_layers()."""
        if self.trace is None:
            return self
        parts = []
        for number in range(len(layers)):
            trace, matrix = at(self.trace, slice(number, number + 1)), None
            edge, *tensors = (tensor.to(trace.tail.device) for tensor in layers[number])
            if tensors and not isinstance(trace, Columns):
                matrix = (trace.matrix.float() + product(Factors(*tensors))).to(trace.tail.dtype)
            parts.append(trace.replaced(edge[None], matrix))
        return self._replace(trace=stacked(parts))
