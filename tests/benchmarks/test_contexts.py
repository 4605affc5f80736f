"""The bytes of a chunk by the number of its contexts."""

import pytest

from benchmarks import contexts


def test_patches_take_their_budget_and_the_base_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 102 tokens, the steps of int8 take about one percent of the KV."""
    monkeypatch.setattr(contexts, "SIZE", (280, 280))
    monkeypatch.setattr(contexts, "COUNTS", (1, 3))
    found = contexts.measure_contexts()
    assert found["full"] == {"1": 1.0, "3": pytest.approx((1 + 2 * 0.12) / 3, abs=0.01)}
    assert found["int8"] == {"1": pytest.approx(0.51, abs=0.005), "3": pytest.approx((0.51 + 2 * 0.12) / 3, abs=0.01)}
