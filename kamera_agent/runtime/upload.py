"""Chunks on their way to a device: some layers are copied on a side stream while those before them are rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of

Tensors = tuple[torch.Tensor, ...]

# Layers go together until they have so many bytes: fewer would be spent on launches, more would overlap less.
GROUP_BYTES = 4 << 20
ALIGNMENT_BYTES = 64


class Group(NamedTuple):
    """Some layers of a chunk on the device, for that slice of a pool's layers; as reference.rebuild takes them."""

    layers: slice
    canonical: Sequence[LayerKV]
    factors: Sequence[Factors] | None


class Upload:
    """Two buffers in pinned memory, two on the device, and a side stream. For one chunk at a time.

    While the host fills one half, the other is on its way, and while one is on its way, the other is consumed. Events
    say when a half is free again: nothing waits for the device as a whole, and it does not matter which stream is the
    current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._halves: list[_Half] = []

    def groups(self, canonical: Sequence[LayerKV], factors: Sequence[Factors] | None) -> Iterator[Group]:
        """The layers in order. A group may be used, on the stream that is current now, until the next is asked for.

        canonical, factors: contiguous tensors on the CPU, per layer.
        """
        num_kv = len(tensors_of(canonical[0])) if canonical else 0
        layers = [tensors_of(kv) for kv in canonical]
        if factors is not None:
            layers = [kv + tensors_of(patch) for kv, patch in zip(layers, factors, strict=True)]
        sizes = [sum(_room(tensor) for tensor in layer) for layer in layers]
        spans = list(_spans(sizes))
        current = torch.cuda.current_stream(self._device)
        self._make_room(max((sum(sizes[span]) for span in spans), default=0), current)
        for number, span in enumerate(spans):
            half = self._halves[number % 2]
            arrived = half.send(layers[span], self._stream)
            current.wait_event(half.copied)
            kv = [LayerKV(*layer[:num_kv]) for layer in arrived]
            patch = None if factors is None else [Factors(*layer[num_kv:]) for layer in arrived]
            try:
                yield Group(span, kv, patch)
            finally:
                half.consumed.record(current)

    def _make_room(self, num_bytes: int, current: torch.cuda.Stream) -> None:
        if self._halves and self._halves[0].num_bytes >= num_bytes:
            return
        for half in self._halves:
            # The memory goes to whoever asks next, on any stream.
            half.consumed.synchronize()
        self._halves = [_Half(num_bytes, self._device, current) for _ in range(2)]


class _Half:
    """A buffer in pinned memory and one on the device.

    copied: the last copy from the one to the other is done. consumed: nothing reads the one on the device any more.
    """

    def __init__(self, num_bytes: int, device: torch.device, current: torch.cuda.Stream) -> None:
        self.num_bytes = num_bytes
        self._pinned = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._there = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self.copied, self.consumed = torch.cuda.Event(), torch.cuda.Event()
        # The device's memory may have been someone else's, who may still be at it on this stream.
        self.consumed.record(current)

    def send(self, layers: Sequence[Tensors], stream: torch.cuda.Stream) -> list[Tensors]:
        """The layers as they will be on the device once `copied` is there. Waits for the copy before the last."""
        self.copied.synchronize()
        tensors = [tensor for layer in layers for tensor in layer]
        starts = list(accumulate(map(_room, tensors), initial=0))
        for tensor, start in zip(tensors, starts, strict=False):
            self._pinned[start : start + tensor.nbytes].copy_(tensor.reshape(-1).view(torch.uint8))
        stream.wait_event(self.consumed)
        _copy(self._there[: starts[-1]], self._pinned[: starts[-1]], stream)
        self.copied.record(stream)
        arrived = iter([_view(self._there, start, like) for start, like in zip(starts, tensors, strict=False)])
        return [tuple(next(arrived) for _ in layer) for layer in layers]


def _copy(target: torch.Tensor, source: torch.Tensor, stream: torch.cuda.Stream) -> None:
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)


def _view(memory: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return memory[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _room(tensor: torch.Tensor) -> int:
    """Bytes that a tensor takes in a buffer: the next one begins aligned."""
    return -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _spans(sizes: Sequence[int]) -> Iterator[slice]:
    """Layers that go together, by their bytes: at most GROUP_BYTES, or one."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > GROUP_BYTES:
            yield slice(start, stop)
            start = stop
