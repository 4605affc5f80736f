"""The copy path on streams that take their steps in any order that their events allow."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import pytest
import torch

from kamera_agent.runtime import upload
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.upload import Upload


class Machine:
    """Streams as queues of steps. Steps run only while the host waits, in a random order that the events allow."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.streams: list[Stream] = []
        self.done: set[object] = set()

    def run_until(self, finished: Callable[[], bool]) -> None:
        while not finished():
            ready = [stream for stream in self.streams if stream.queue and stream.queue[0][0] in (None, *self.done)]
            assert ready, "every stream waits for another"
            self.random.choice(ready).queue.popleft()[1]()


class Stream:
    """Steps, each with the record that it waits for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.queue: deque[tuple[object, Callable[[], Any]]] = deque()
        machine.streams.append(self)

    def do(self, step: Callable[[], Any]) -> None:
        self.queue.append((None, step))

    def wait_event(self, event: "Event") -> None:
        self.queue.append((event.record_now, lambda: None))


class Event:
    """As in CUDA: a wait is for the record that is the newest at that time, or for nothing where there is none."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.record_now: object = None

    def record(self, stream: Stream) -> None:
        self.record_now = object()
        stream.do(partial(self.machine.done.add, self.record_now))

    def synchronize(self) -> None:
        self.machine.run_until(lambda: self.record_now is None or self.record_now in self.machine.done)


@pytest.fixture(params=range(20))
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The parts of torch.cuda that Upload uses, on the CPU."""
    machine = Machine(request.param)
    current = Stream(machine)
    allocate = torch.empty

    def copy(target: torch.Tensor, source: torch.Tensor, stream: Stream) -> None:
        stream.do(lambda: target.copy_(source))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(machine))
    monkeypatch.setattr(torch.cuda, "Event", lambda: Event(machine))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **named: allocate(*args, **named))
    monkeypatch.setattr(upload, "_copy", copy)
    return machine


def chunk(generator: torch.Generator, num_layers: int, tokens: int) -> tuple[list[LayerKV], list[Factors]]:
    """A base, and factors whose ranks differ; the first rank is 0."""
    base = [LayerKV(*torch.randn(2, 2, tokens, 8, generator=generator)) for _ in range(num_layers)]
    ranks = [3 * layer % 7 for layer in range(num_layers)]
    factors = [
        Factors(torch.randn(tokens, rank, generator=generator), torch.randn(rank, 32, generator=generator))
        for rank in ranks
    ]
    return base, factors


@contextmanager
def groups_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "GROUP_BYTES", size)
        yield


@pytest.mark.parametrize("group_bytes", [1, 20_000, 1 << 30], ids=["layer by layer", "a few", "all"])
def test_every_layer_arrives_whole(machine: Machine, group_bytes: int, seeded: torch.Generator) -> None:
    """Three chunks, the second the largest, read by steps that run whenever the streams allow it."""
    sender = Upload(torch.device("cpu"))
    current = machine.streams[0]
    expected, actual = [], []
    for num_layers, tokens, patched in ((5, 17, True), (6, 63, True), (3, 1, False)):
        base, factors = chunk(seeded, num_layers, tokens)
        seen: list[int] = []
        with groups_of(group_bytes):
            for layers, kv, patch in sender.groups(base, factors if patched else None):
                assert (patch is not None) == patched
                seen += range(num_layers)[layers]
                for number, tensors in zip(range(num_layers)[layers], kv, strict=True):
                    arrived = [*tensors_of(tensors), *(tensors_of(patch[number - layers.start]) if patch else ())]
                    expected += [*tensors_of(base[number]), *(tensors_of(factors[number]) if patched else ())]
                    for tensor in arrived:
                        current.do(lambda tensor=tensor: actual.append(tensor.clone()))
        assert seen == list(range(num_layers))
    machine.run_until(lambda: not any(stream.queue for stream in machine.streams))
    assert len(actual) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


def test_a_group_that_is_left_early_is_not_overwritten(machine: Machine, seeded: torch.Generator) -> None:
    sender = Upload(torch.device("cpu"))
    base, _ = chunk(seeded, 4, 63)
    actual: list[torch.Tensor] = []
    with groups_of(1):
        groups = sender.groups(base, None)
        _, kv, _ = next(groups)
        machine.streams[0].do(lambda: actual.append(kv[0].keys.clone()))
        groups.close()
        for _ in sender.groups(base[::-1], None):
            pass
    machine.run_until(lambda: not any(stream.queue for stream in machine.streams))
    assert torch.equal(actual[0], base[0].keys)
