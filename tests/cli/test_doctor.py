"""kamera doctor, on the pocket model, on a text model, and without a model."""

import json
from pathlib import Path

import torch
from cli_records import RunKamera

from benchmarks.backbones.zoo.gemma3n import gemma3n
from benchmarks.backbones.zoo.gemma4 import gemma4_k_eq_v
from benchmarks.backbones.zoo.text_only import text_only
from kamera_agent import Kamera
from kamera_agent.cli.diagnosis import diagnose
from kamera_agent.cli.doctor import _rows


def test_doctor_measures_the_pocket_model(run_kamera: RunKamera) -> None:
    done = run_kamera("doctor", "pocket", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["family"], found["attention"], found["dtype"]) == ("Qwen2VL", "GQA", "float32")
    [layers] = found["layers"]
    assert (layers["first"], layers["kind"], layers["rope"]) == (0, "full_attention", "half")
    assert layers["rope_error"] < 1e-5
    assert found["screen_bytes"] == found["screen_tokens"] * found["token_bytes"] > 0
    assert found["round_trip"]["computed_error"] < 1e-4
    assert 0 <= found["round_trip"]["recalled_kl"] < 0.01


def test_doctor_on_latent_attention_without_eyes(run_kamera: RunKamera, tmp_path: Path) -> None:
    """Per token, 2 bytes for each of 24 + 8 numbers in four layers; expanded, 4 heads of 16 + 8 and 16 numbers."""
    model, processor = text_only("deepseek_v3", torch.bfloat16)
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    done = run_kamera("doctor", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "MLA, full_attention, RoPE half" in done.stdout
    assert "256 B (expanded 1.3 kB)" in done.stdout
    assert "not seen" in done.stdout


def test_doctor_says_which_layers_share_their_kv() -> None:
    with Kamera(*gemma3n(torch.float32)) as kamera:
        diagnosis = diagnose(kamera)
    shared = [layers.rope_error is None for layers in diagnosis.layers]
    assert shared == [False] * 4 + [True] * 2
    assert diagnosis.token_bytes == 4 * 2 * 2 * 16 * 4
    facts = dict(_rows(diagnosis))
    assert facts["layer 3"].startswith("GQA, full_attention, RoPE half, off by ")
    assert facts["layer 4"] == "GQA, sliding_attention, KV of an earlier layer"


def test_doctor_on_recurrent_layers(run_kamera: RunKamera, tmp_path: Path) -> None:
    """In float32, a layer keeps K and V of 2 heads of 16. The three others keep, per chunk, 3 of 160 columns before
    the convolution, and in 4 heads 16 x 16 and 16 x 24 numbers of the map."""
    model, processor = text_only("qwen3_5_text", torch.float32)
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    done = run_kamera("doctor", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    kinds = [
        (layers["first"], layers["last"], layers["kind"], layers["rope_error"] is None) for layers in found["layers"]
    ]
    assert kinds == [(0, 2, "linear_attention", True), (3, 3, "full_attention", False)]
    assert found["token_bytes"] == 4 * 2 * 2 * 16
    assert found["thousand_bytes"] == 1000 * found["token_bytes"] + 3 * 4 * (3 * 160 + 4 * 16 * (16 + 24))
    assert found["round_trip"]["computed_error"] < 1e-4
    done = run_kamera("doctor", tmp_path)
    assert "linear_attention, a state and no keys" in done.stdout


def test_doctor_on_short_convolutions_and_banks() -> None:
    """Two of four layers keep two columns of 64 per chunk; full layers of Gemma 4 keep one head of 48 for K and for V,
    sliding ones two of 24."""
    with Kamera(*text_only("lfm2", torch.float32)) as kamera:
        diagnosis = diagnose(kamera)
    facts = dict(_rows(diagnosis))
    assert facts["layer 0"] == "conv, its last columns and no keys"
    assert facts["layer 1"].startswith("GQA, full_attention, RoPE half, off by ")
    assert facts["weights"] == "not quantised"
    assert diagnosis.thousand_bytes == 4 * (1000 * 2 * 2 * 2 * 16 + 2 * 2 * 64)
    with Kamera(*gemma4_k_eq_v(torch.float32)) as kamera:
        diagnosis = diagnose(kamera)
    assert [layers.kind for layers in diagnosis.layers] == ["sliding_attention", "full_attention"] * 3
    assert diagnosis.thousand_bytes == 4 * 1000 * 3 * 2 * (48 + 2 * 24)
    assert diagnosis.round_trip.computed_error < 1e-4


def test_doctor_names_what_cannot_be_loaded(run_kamera: RunKamera, tmp_path: Path) -> None:
    done = run_kamera("doctor", tmp_path / "nothing")
    assert done.exit_code == 1
    assert done.stderr.startswith("kamera: Cannot load")
