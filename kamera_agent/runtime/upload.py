"""Uploading chunks to a GPU: a side stream copies some layers while the layers before them are rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of

Tensors = tuple[torch.Tensor, ...]

# Bytes of layers per copy. With fewer, launches take most of the time; with more, less of the copying overlaps. A layer
# of a screenshot in Qwen2.5-VL-7B has 2.4 MB.
GROUP_BYTES = 16 << 20
ALIGNMENT_BYTES = 64


class Group(NamedTuple):
    """Some layers of a chunk on the device. layers: their slice of the pool's layers. factors: None without a patch."""

    layers: slice
    base: Sequence[LayerKV]
    factors: Sequence[Factors] | None


class Upload:
    """Copies one chunk at a time through two halves, each a buffer in pinned memory and one on the device.

    host           fill 0   fill 1   fill 0   ...
    side stream             copy 0   copy 1   copy 0   ...
    current stream                   use 0    use 1    use 0   ...

    Events order the steps on each half, so nothing waits for the whole device, and any stream may be the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._halves: list[_Half] = []

    def groups(self, base: Sequence[LayerKV], factors: Sequence[Factors] | None) -> Iterator[Group]:
        """Yield the layers in order. A group is valid on the current stream until the next one is requested.

        base, factors: one per layer, contiguous, on the CPU. factors: None without a patch.
        """
        num_kv = len(tensors_of(base[0])) if base else 0
        layers = [tensors_of(kv) for kv in base]
        if factors is not None:
            layers = [kv + tensors_of(patch) for kv, patch in zip(layers, factors, strict=True)]
        sizes = [sum(_room(tensor) for tensor in layer) for layer in layers]
        slices = list(_groups(sizes))
        current = torch.cuda.current_stream(self._device)
        self._make_room(max((sum(sizes[part]) for part in slices), default=0), current)
        for number, part in enumerate(slices):
            half = self._halves[number % 2]
            arrived = half.send(layers[part], self._stream)
            current.wait_event(half.copied)
            kv = [LayerKV(*layer[:num_kv]) for layer in arrived]
            patch = None if factors is None else [Factors(*layer[num_kv:]) for layer in arrived]
            try:
                yield Group(part, kv, patch)
            finally:
                half.consumed.record(current)

    def _make_room(self, num_bytes: int, current: torch.cuda.Stream) -> None:
        if self._halves and self._halves[0].num_bytes >= num_bytes:
            return
        for half in self._halves:
            # The allocator may give freed memory to any stream at once.
            half.consumed.synchronize()
        self._halves = [_Half(num_bytes, self._device, current) for _ in range(2)]


class _Half:
    """A buffer in pinned memory and one on the device.

    Events: copied, when the last copy between them is done; consumed, when nothing reads the device's buffer any more.
    """

    def __init__(self, num_bytes: int, device: torch.device, current: torch.cuda.Stream) -> None:
        self.num_bytes = num_bytes
        self._pinned = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._on_device = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self.copied, self.consumed = torch.cuda.Event(), torch.cuda.Event()
        # The current stream may still use this memory for a tensor that the host has already freed.
        self.consumed.record(current)

    def send(self, layers: Sequence[Tensors], stream: torch.cuda.Stream) -> list[Tensors]:
        """Start copying the layers. Returns views of the device's buffer, which hold them after the event `copied`."""
        # The host must not overwrite pinned memory that the previous copy of this half still reads.
        self.copied.synchronize()
        tensors = [tensor for layer in layers for tensor in layer]
        starts = list(accumulate(map(_room, tensors), initial=0))
        for tensor, start in zip(tensors, starts, strict=False):
            self._pinned[start : start + tensor.nbytes].copy_(tensor.reshape(-1).view(torch.uint8))
        # Likewise, the copy must not overwrite layers that a rebuild still reads.
        stream.wait_event(self.consumed)
        _copy(self._on_device[: starts[-1]], self._pinned[: starts[-1]], stream)
        self.copied.record(stream)
        arrived = iter([_view(self._on_device, start, like) for start, like in zip(starts, tensors, strict=False)])
        return [tuple(next(arrived) for _ in layer) for layer in layers]


def _copy(target: torch.Tensor, source: torch.Tensor, stream: torch.cuda.Stream) -> None:
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)


def _view(memory: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return memory[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _room(tensor: torch.Tensor) -> int:
    """Bytes that a tensor takes in a buffer, rounded up to keep the next one aligned."""
    return -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _groups(sizes: Sequence[int]) -> Iterator[slice]:
    """Slices of layers that are copied together: at most GROUP_BYTES, or a single layer."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > GROUP_BYTES:
            yield slice(start, stop)
            start = stop
