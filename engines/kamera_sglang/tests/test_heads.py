"""The beginnings of chunks that the engine did not compute."""

import torch

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_sglang.heads import Heads, Spot
from kamera_sglang.mailbox import Pages
from kamera_sglang.rows import cut

OPENS, PAD, CLOSES = 1, 2, 3
IMAGE = [OPENS, *[PAD] * 6, CLOSES]
SPOT = Spot("salt", b"chain")
START = 11


def pages(num_tokens: int) -> Pages:
    return Pages(START, [LayerKV(*torch.randn(2, 3, num_tokens, 4)) for _ in range(2)])


def without(whole: Pages, num_missing: int) -> Pages:
    return Pages(START + num_missing, [cut(layer, slice(num_missing, None)) for layer in whole.layers])


def test_a_marker_comes_from_the_image_that_was_there_before() -> None:
    heads, first, second = Heads({PAD}), pages(len(IMAGE)), pages(len(IMAGE))
    assert heads.completed(SPOT, IMAGE, first) is first
    found = heads.completed(SPOT, IMAGE, without(second, 1))
    assert found
    assert found.start == START
    for layer, marker, rest in zip(found.layers, first.layers, second.layers, strict=True):
        assert torch.equal(layer.keys, torch.cat([marker.keys[:, :1], rest.keys[:, 1:]], 1))
        assert torch.equal(layer.values, torch.cat([marker.values[:, :1], rest.values[:, 1:]], 1))


def test_a_placeholder_never_does() -> None:
    heads = Heads({PAD})
    heads.completed(SPOT, IMAGE, pages(len(IMAGE)))
    assert heads.completed(SPOT, IMAGE, without(pages(len(IMAGE)), 2)) is None


def test_nothing_comes_from_another_place_or_another_beginning() -> None:
    heads = Heads({PAD})
    heads.completed(SPOT, IMAGE, pages(len(IMAGE)))
    end = without(pages(len(IMAGE)), 1)
    assert heads.completed(Spot("other", b"chain"), IMAGE, end) is None
    assert heads.completed(Spot("salt", b"other"), IMAGE, end) is None
    assert heads.completed(SPOT, [7, *IMAGE[1:]], end) is None
