"""Vision-encoder outputs: computed for new pixels only, and kept in an LRU cache with a cap in bytes."""

from __future__ import annotations

from collections import OrderedDict

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.base import Family


class Encoder:
    """The vision encoder of a family, and the cache of its outputs. The engine calls it under the engine's lock.

    num_calls, num_avoided: runs of the encoder, and runs that the cache saved, since construction.
    """

    def __init__(self, family: Family, cap_bytes: int) -> None:
        self._family = family
        self._cap_bytes = cap_bytes
        self._outputs: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.num_calls = 0
        self.num_avoided = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the cached outputs. May be read from any thread."""
        return sum(output.nbytes for output in list(self._outputs.values()))

    def features(self, chunk: Chunk) -> torch.Tensor:
        """The encoder's output for a chunk: [num_placeholders, hidden]. The caller must not write to it."""
        if chunk.digest in self._outputs:
            self._outputs.move_to_end(chunk.digest)
            self.num_avoided += 1
            return self._outputs[chunk.digest]
        features = self._family.encode(chunk)
        self.num_calls += 1
        self._keep(chunk.digest, features)
        return features

    def _keep(self, digest: bytes, features: torch.Tensor) -> None:
        self._outputs[digest] = features
        while self.num_bytes > self._cap_bytes:
            self._outputs.popitem(last=False)
