from benchmarks.compression import draw_cases, measure
from kamera_agent import Kamera


def test_int8_saves_bytes_and_full_rank_is_a_full_prefill() -> None:
    """One case. A picture has more than 32 tokens, so "auto" with a small error budget replaces full rank."""
    with Kamera.pocket() as first:
        figures = {
            dtype: measure(first, draw_cases(1), rank="auto", error_budget=0.01, byte_budget=1.0, base_dtype=dtype)
            for dtype in ("full", "int8", "thin")
        }
    assert figures["int8"]["base_bytes"] < 0.3 * figures["full"]["base_bytes"]
    assert 0.7 < figures["thin"]["base_bytes"] / figures["int8"]["base_bytes"] < 0.8
    assert all(figure["kl"] < 1e-3 and figure["same"] == 1 for figure in figures.values())
