"""The latency of a store's tiers, on a small record."""

from pathlib import Path

import pytest
import torch

from benchmarks.latency import TIERS, measure_latency
from kamera_agent.chunk import Key, Record


def test_every_tier_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    key = Key.of(test="latency")
    record = Record.of(key, key.digest, "base", [[torch.ones(100), torch.ones(100)]])
    figures = measure_latency(tmp_path, record, 8)
    assert figures.keys() == TIERS.keys()
    for ways in figures.values():
        assert ways.keys() == {"put", "get_1", "get_4"}
        assert all(0 < each["p50_ms"] <= each["p99_ms"] for each in ways.values())
