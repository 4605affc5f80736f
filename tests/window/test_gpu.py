"""The same promises on a CUDA device."""

import pytest
import torch
from huggingface import turn_keys
from models import TINY, max_error, screenshot

from kamera_agent import Kamera
from kamera_agent.pocket.model import PocketProcessor, build_model


@pytest.mark.gpu
@pytest.mark.parametrize("fidelity", ["exact", "patched"])
def test_drop_and_recall_on_a_gpu(processor: PocketProcessor, fidelity: str) -> None:
    """fp32: full rank and the same order give the logits of a full prefill; moved keys have the model's own bits."""
    model = build_model(TINY).cuda()
    with Kamera(model, processor, fidelity=fidelity, rank=26) as kamera:
        window = kamera.window()
        ids = [window.add_image(screenshot(i)) for i in range(4)]
        assert max_error(window.reference_logits("what?"), window.logits("what?")) <= 1e-4
        kamera.flush()
        window.drop(ids[0])
        window.logits("what?")
        moved = next(span for span in window.spans if span.id == ids[2])
        [bank], part = window._assembly.residence.pool.banks, moved.slots[0]
        chunk = next(item.run for item in window._items.live if item.id == ids[2])
        expected = turn_keys(model, bank.masters[:, :, part.start : part.stop], (chunk.offsets + moved.position).cuda())
        if fidelity == "patched":
            assert torch.equal(bank.keys[:, :, part.start : part.stop], expected)
        window.recall(ids[0], at=ids[1])
        assert max_error(window.reference_logits("what?"), window.logits("what?")) <= 1e-3
        assert len(window.generate("what?", max_new_tokens=8).text) > 0
