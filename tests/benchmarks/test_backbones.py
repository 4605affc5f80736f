"""benchmarks.backbones on one backbone whose figures are known."""

from benchmarks.backbones.__main__ import _summary
from benchmarks.backbones.measure import measure
from benchmarks.backbones.zoo import MATRIX


def test_measures_a_latent_backbone() -> None:
    """2 bytes for each of 24 + 8 numbers in four layers. Full rank equals a full prefill, and blind does not."""
    figures = measure(next(backbone for backbone in MATRIX if backbone.name == "llava-deepseek_v3"))
    assert (figures["layers"], figures["weights"]) == (["full_attention"], None)
    assert figures["bytes_per_token_bf16"] == 2 * 4 * (24 + 8)
    assert figures["expanded_bytes_per_token_bf16"] == 2 * 4 * 4 * (16 + 8 + 16)
    assert all(error < 1e-4 for error in figures["max_err_fp32"].values())
    kl = figures["kl"]
    assert kl["blind"] > kl["rank_4"] > kl["rank_8"] > kl["rank_16"] > kl["full"]
    assert kl["full"] < 1e-8


def test_counts_hybrids_and_quantised_weights() -> None:
    """Short convolutions alone make no hybrid."""
    common = {"max_err_fp32": {"kept": 0.0, "moved": 0.0, "full_rank": 0.0}}
    kinds = {"full": ["full_attention"], "delta": ["full_attention", "linear_attention"], "conv": ["conv"]}
    rows = {name: {"attention": "GQA", "layers": layers, "weights": None} | common for name, layers in kinds.items()}
    rows["packed"] = rows["delta"] | {"attention": "MHA", "weights": "torchao Int8WeightOnlyConfig"}
    summary = _summary(rows)
    names = ("num_families", "num_mha", "num_mla", "num_hybrid", "num_quantised")
    assert [summary[name] for name in names] == [4, 1, 0, 2, 1]
