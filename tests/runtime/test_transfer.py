"""What goes from the host to a device, by counting: as little as possible, and without waiting."""

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from models import TINY, screenshot

from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.runtime.families import base
from kamera_agent.runtime.kernels import slots
from kamera_agent.runtime.kernels.slots import Slots, index_of
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.runtime.upload import _groups

CPU = torch.device("cpu")


@pytest.fixture
def sendings(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The tensors that are sent."""
    tensors: list[torch.Tensor] = []

    def counted(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        tensors.append(tensor)
        return tensor.to(device)

    for module in (base, slots):
        monkeypatch.setattr(module, "sent", counted)
    return tensors


def test_a_picture_is_embedded_with_one_sending(sendings: list[torch.Tensor]) -> None:
    """Its tokens; its placeholders are in a row. They are where the encoder's output goes."""
    model = build_model(TINY)
    with Kamera(model, build_processor(TINY)) as kamera:
        chunk = kamera.family.image_chunk(screenshot(0), "")
        features = torch.randn(len(chunk.token_ids) - 2, TINY.hidden)
        sendings.clear()
        embeds = kamera.family.embed(chunk, features)
    assert len(sendings) == 1
    table = model.get_input_embeddings().weight
    first, last = chunk.token_ids[0], chunk.token_ids[-1]
    assert torch.equal(embeds, torch.cat([table[first][None], features, table[last][None]]))


def test_slots_in_many_ranges_are_sent_at_once(sendings: list[torch.Tensor]) -> None:
    many = Slots(tuple(range(start, start + 3) for start in range(0, 100, 10)))
    index = many.index(CPU)
    assert isinstance(index, torch.Tensor)
    assert index.tolist() == [slot for part in many.ranges for slot in part]
    assert len(sendings) == 1
    assert Slots((range(3, 9),)).index(CPU) == slice(3, 9)
    assert len(sendings) == 1


def test_rows_in_a_row_are_a_slice() -> None:
    assert index_of(torch.tensor([4]), CPU) == slice(4, 5)
    assert index_of(torch.tensor([4, 5, 6]), CPU) == slice(4, 7)
    scattered = index_of(torch.tensor([4, 6, 5]), CPU)
    assert isinstance(scattered, torch.Tensor)
    assert scattered.tolist() == [4, 6, 5]


def test_the_host_does_not_wait() -> None:
    """A GPU gets a tensor from pinned memory. One that is on a GPU already is not pinned."""
    tensor: Any = Mock(device=CPU)
    cuda = torch.device("cuda")
    found = sent(tensor, cuda)
    pinned = tensor.contiguous.return_value.pin_memory.return_value
    pinned.to.assert_called_once_with(cuda, non_blocking=True)
    assert found is pinned.to.return_value
    there: Any = Mock(device=cuda)
    sent(there, cuda)
    there.to.assert_called_once_with(cuda)
    there.contiguous.assert_not_called()


def test_a_screenshot_is_rebuilt_in_few_launches() -> None:
    """Of Qwen2.5-VL-7B: 1,196 tokens, 28 layers with K and V of 4 heads with 128 components, in bfloat16."""
    layer = 1196 * 2 * 4 * 128 * 2
    assert len(list(_groups([layer] * 28))) <= 5
