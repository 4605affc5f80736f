"""What orders want, out of the KV that the engine computes."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.mailbox import Mailbox, Order
from kamera_sglang.rows import cut
from kamera_sglang.taking import Taking

HASHES = [f"page {number}" for number in range(40)]


@pytest.fixture
def layers() -> list[LayerKV]:
    """KV of a prompt, one token a page."""
    return [LayerKV(*torch.randn(2, 3, len(HASHES), 4)) for _ in range(2)]


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path)


@pytest.fixture
def taking(mailbox: Mailbox) -> Taking:
    return Taking(mailbox)


def compute(taking: Taking, layers: list[LayerKV], start: int, stop: int) -> None:
    taking.take(HASHES[start:stop], [cut(layer, slice(start, stop)) for layer in layers])


def is_delivered(mailbox: Mailbox, layers: list[LayerKV], *ranges: range) -> bool:
    taken = mailbox.taken("a") or []
    assert [pages.start for pages in taken] == [part.start for part in ranges]
    return bool(taken) and all(
        torch.equal(found.keys, layer.keys[:, part]) and torch.equal(found.values, layer.values[:, part])
        for pages, part in zip(taken, ranges, strict=True)
        for found, layer in zip(pages.layers, layers, strict=True)
    )


@pytest.mark.parametrize("ends", [[0, 40], [0, 12, 40], [0, 11, 20, 21, 40]])
def test_a_range_is_delivered_once_all_of_it_is_computed(
    taking: Taking, mailbox: Mailbox, layers: list[LayerKV], ends: list[int]
) -> None:
    taking.want("a", range(10, 25), HASHES[10:25])
    for start, stop in pairwise(ends):
        assert mailbox.taken("a") is None
        compute(taking, layers, start, stop)
    assert is_delivered(mailbox, layers, range(10, 25))
    assert not taking.wants(HASHES)


def test_several_ranges_of_a_request(taking: Taking, mailbox: Mailbox, layers: list[LayerKV]) -> None:
    mailbox.place("a", Order(40))
    taking.want("a", range(3, 9), HASHES[3:9])
    taking.want("a", range(20, 30), HASHES[20:30])
    compute(taking, layers, 0, 25)
    assert is_delivered(mailbox, layers, range(3, 9))
    compute(taking, layers, 25, 30)
    assert is_delivered(mailbox, layers, range(3, 9), range(20, 30))


def test_nothing_is_taken_for_a_request_that_is_over(taking: Taking, mailbox: Mailbox, layers: list[LayerKV]) -> None:
    mailbox.place("a", Order(40))
    taking.want("a", range(3, 9), HASHES[3:9])
    compute(taking, layers, 0, 5)
    mailbox.clear("a")
    taking.want("another", range(30, 33), HASHES[30:33])
    compute(taking, layers, 5, 40)
    assert mailbox.taken("a") is None
    assert not taking.wants(HASHES)
