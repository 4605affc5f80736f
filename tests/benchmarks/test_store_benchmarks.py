"""The benchmarks beside benchmarks.store, each in a few rounds."""

from pathlib import Path

import pytest
import torch

from benchmarks import behind, layouts
from kamera_agent import Kamera


def test_turns_are_timed_behind_others_and_after_them() -> None:
    with Kamera.pocket() as kamera:
        summary = behind.summary(behind.run(kamera, behind.SIZES["small"], 2))
    assert all(summary[f"{way}_ms"] > 0 for way in behind.WAYS)
    assert len(summary["behind_ratio"]) == len(summary["again_ratio"]) == 3
    assert 0 < summary["work_share"] < 1


def test_both_layouts_give_back_what_was_written(tmp_path: Path) -> None:
    values = [torch.arange(5000, dtype=torch.uint8).numpy(), torch.ones(7, dtype=torch.uint8).numpy()]
    for kind in (layouts.Map, layouts.Segment):
        layout = kind(tmp_path)
        layout.write(values)
        layout.write(values[::-1])
        layout.write(values)
        read = [torch.zeros(value.size, dtype=torch.uint8).numpy() for value in values]
        layout.read(read)
        layout.close()
        assert all((left == right).all() for left, right in zip(read, values, strict=True))


def test_layouts_are_measured(tmp_path: Path) -> None:
    rates = layouts.rates(tmp_path, 1)
    assert set(rates) == {f"{name}_{way}_gbps" for name in ("map", "segment") for way in ("write", "read", "cold")}
    openings = layouts.openings(tmp_path, 2)
    assert openings["bytes"] > 2 * 14_000_000
    assert all(value > 0 for value in openings.values())


def test_lossless_codecs_give_back_every_bit() -> None:
    """figures() compares; NaN, infinity, zeros of both signs and the least numbers among the values."""
    pytest.importorskip("zstandard")
    from benchmarks.codecs import CODECS, figures

    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    tensors = [bits.view(torch.bfloat16).reshape(2, 512, 64), torch.zeros(2, 512, 64, dtype=torch.bfloat16)]
    found = figures(tensors, 1)
    assert found.keys() == {*CODECS, "int8", "int8_zstd"}
    assert found["raw"]["share"] == 1
