"""Runs of pages on a store."""

from hashlib import sha256

import pytest
import torch

from kamera_agent.config import MIB
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.memory import MemoryStore
from kamera_sglang.rows import Row
from kamera_sglang.runs import MAX_TOKENS, Runs

NUM_LAYERS = 2
FACTS = {"checkpoint": "one"}


def hashes_of(tokens: str) -> list[str]:
    """A chained hash per letter, as the engine's."""
    return [sha256(tokens[: end + 1].encode()).hexdigest() for end in range(len(tokens))]


def kv_of(tokens: str, page_size: int) -> list[LayerKV]:
    """KV in which each page holds the number of its letter."""
    rows = torch.tensor([float(ord(token)) for token in tokens]).repeat_interleave(page_size)
    return [LayerKV(*(rows + layer).expand(2, 3, -1)[..., None].repeat(1, 1, 1, 4)) for layer in range(NUM_LAYERS)]


def letters(rows: list[Row], page_size: int) -> str:
    found = ""
    for row in rows:
        for layer in row.layers:
            for states in (layer.keys, layer.values):
                page = states[:, row.tokens]
                assert page.shape == (3, page_size, 4)
                assert (page == page[0, 0, 0]).all()
        found += chr(int(row.layers[0].keys[0, row.tokens.start, 0]))
        assert row.layers[1].values[0, row.tokens.start, 0] == ord(found[-1]) + 1
    return found


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(64 * MIB)


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_what_was_kept_is_found_up_to_where_a_prompt_goes_another_way(store: MemoryStore, page_size: int) -> None:
    runs = Runs(store, page_size, FACTS)
    assert runs.find(hashes_of("abc")) == []
    runs.keep(hashes_of("abcdefgh"), kv_of("abcdefgh", page_size))
    # The engine's cache held abc, and keeps the rest of the second prompt.
    runs.keep(hashes_of("abcxyz")[3:], kv_of("xyz", page_size))
    for prompt, length in {"abcdefgh": 8, "abc": 3, "abcxyz": 6, "abcxq": 4, "b": 0}.items():
        assert letters(runs.find(hashes_of(prompt)), page_size) == prompt[:length]


def test_a_long_prompt_becomes_several_records(store: MemoryStore) -> None:
    runs, prompt = Runs(store, 1, FACTS), "ab" * MAX_TOKENS
    runs.keep(hashes_of(prompt), kv_of(prompt, 1))
    assert store.stats().num_records == 2
    assert letters(runs.find(hashes_of(prompt)), 1) == prompt


def test_another_model_or_page_size_finds_nothing(store: MemoryStore) -> None:
    Runs(store, 1, FACTS).keep(hashes_of("abc"), kv_of("abc", 1))
    assert Runs(store, 1, {"checkpoint": "another"}).find(hashes_of("abc")) == []
    assert Runs(store, 2, FACTS).find(hashes_of("abc")) == []
