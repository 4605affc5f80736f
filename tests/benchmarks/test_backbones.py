"""benchmarks.backbones on one backbone: what it must find is known."""

from benchmarks.backbones.measure import measure
from benchmarks.backbones.zoo import MATRIX


def test_measures_a_latent_backbone() -> None:
    """2 bytes of 24 + 8 numbers in each of four layers; full rank is a full prefill, and blind is not."""
    found = measure(next(backbone for backbone in MATRIX if backbone.name == "llava-deepseek_v3"))
    assert found["bytes_per_token_bf16"] == 2 * 4 * (24 + 8)
    assert found["expanded_bytes_per_token_bf16"] == 2 * 4 * 4 * (16 + 8 + 16)
    assert all(error < 1e-4 for error in found["max_err_fp32"].values())
    kl = found["kl"]
    assert kl["blind"] > kl["rank_4"] > kl["rank_8"] > kl["rank_16"] > kl["full"]
    assert kl["full"] < 1e-8
