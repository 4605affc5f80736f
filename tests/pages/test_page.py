"""Pages of exact KV, by what is before them."""

import torch

from kamera_agent.pages.page import page_chains, page_key, page_layers, page_record
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.memory import MemoryStore


def test_a_chain_depends_on_its_page_and_on_all_pages_before_it() -> None:
    one, two = page_chains([[1, 2], [3]]), page_chains([[1], [2, 3]])
    assert len({*one, *two}) == 4
    assert page_chains([[1, 2], [4]])[0] == one[0]
    assert page_chains([[1, 2], [3], [3]])[1:] != [one[1], one[1]]
    assert page_chains([]) == []


def test_a_page_comes_back_bit_for_bit_under_its_own_key_only() -> None:
    store = MemoryStore(1 << 20)
    layers = [LayerKV(torch.randn(2, 5, 4), torch.randn(2, 5, 4)) for _ in range(3)]
    [chain] = page_chains([[1, 2, 3, 4, 5]])
    key = page_key(chain, "ours", model="m", page_size=5)
    store.put_many([page_record(key, layers)])
    others = [page_key(chain, "theirs", model="m", page_size=5), page_key(chain, "ours", model="n", page_size=5)]
    found = store.get_many([key, *others])
    assert [*found] == [key.digest]
    for ours, theirs in zip(page_layers(found[key.digest]), layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
