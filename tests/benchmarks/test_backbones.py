"""benchmarks.backbones on one backbone whose figures are known."""

from benchmarks.backbones.measure import measure
from benchmarks.backbones.zoo import MATRIX


def test_measures_a_latent_backbone() -> None:
    """2 bytes for each of 24 + 8 numbers in four layers. Full rank equals a full prefill, and blind does not."""
    figures = measure(next(backbone for backbone in MATRIX if backbone.name == "llava-deepseek_v3"))
    assert figures["bytes_per_token_bf16"] == 2 * 4 * (24 + 8)
    assert figures["expanded_bytes_per_token_bf16"] == 2 * 4 * 4 * (16 + 8 + 16)
    assert all(error < 1e-4 for error in figures["max_err_fp32"].values())
    kl = figures["kl"]
    assert kl["blind"] > kl["rank_4"] > kl["rank_8"] > kl["rank_16"] > kl["full"]
    assert kl["full"] < 1e-8
