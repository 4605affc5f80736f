"""The benchmark of shared tiers measures what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.shared import NUM_CHUNKS, STEPS, Tier, measure, report, small_record
from kamera_agent.store.remote.address import open_shared


def test_every_step_finds_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put finds no record, a get finds one, and a look finds every chunk, and no listing of it in memory."""
    pytest.importorskip("obstore", reason="needs the extra objects")
    seen: list[tuple[str, int, int]] = []
    with open_shared(tmp_path.as_uri(), 60.0) as store:
        tier = Tier("folder", store, small_record(NUM_CHUNKS))
        chunks = [store._layout.name(small_record(number).header.chunk) for number in range(NUM_CHUNKS)]
        for step in STEPS:
            real = getattr(tier, step)

            def watched(step: str = step, call: Callable[[], object] = real) -> object:
                remembered = sum(store._listings.find(chunk) is not None for chunk in chunks)
                seen.append((step, store.stats().num_records, remembered))
                return call()

            monkeypatch.setattr(tier, step, watched)
        medians = measure([tier], 2)
        looked = tier.look()
    assert {(step, num_records) for step, num_records, _ in seen} == {("put", 12), *((step, 13) for step in STEPS[1:])}
    assert {remembered for step, _, remembered in seen[:-1] if step == "look"} == {0}
    assert [len(headers) for headers in looked] == [1] * NUM_CHUNKS
    assert set(report(medians, 1_000_000, 2)["folder"]) == {"put_mbps", "get_mbps", "look_ms", "turn_mbps", "overlap"}
