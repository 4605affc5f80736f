"""Quantised weights: their names, their identity, and what they compute; the rows of the matrix have the rest."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import max_error
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, DynamicCache, FineGrainedFP8Config, Qwen3Config, Qwen3ForCausalLM

from benchmarks.backbones.zoo.text_only import text_only
from kamera_agent import Kamera, ModelError, UnsupportedModelError
from kamera_agent.cli.diagnosis import round_trip
from kamera_agent.runtime.families.quantisation import scheme_of
from kamera_agent.runtime.slot_cache import cache_argument

# What configurations of checkpoints have -> the name of the scheme.
SCHEMES: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes 4 bits nf4"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes 8 bits"),
    (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {}}}},
        "torchao Int4WeightOnlyConfig",
    ),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq 4 bits"),
    ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq 4 bits"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
    ({"quant_method": "fp8", "dequantize": True}, "fp8 dequantised at load"),
    ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "compressed-tensors"),
]
# Inputs that share a scale, and what the configuration of a checkpoint says of its format.
GROUP = 32
PACKED: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "sym": False, "desc_act": False, "checkpoint_format": "gptq_v2"},
    "awq": {"quant_method": "awq", "version": "gemm", "zero_point": True},
}


@pytest.mark.parametrize(("options", "name"), SCHEMES, ids=[name for _, name in SCHEMES])
def test_names_of_schemes(options: dict[str, Any], name: str) -> None:
    """A configuration is a mapping in a checkpoint, and an object once a quantizer has read it."""
    for config in (options, SimpleNamespace(to_dict=lambda: options)):
        assert scheme_of(SimpleNamespace(config=SimpleNamespace(quantization_config=config))) == name


def test_weights_that_are_not_quantised() -> None:
    assert scheme_of(text_only("llama", torch.float32)[0]) is None


def test_packed_anew_at_first_use() -> None:
    """As layers of bitsandbytes say of themselves on a CPU with bfloat16 in AVX-512."""
    model, processor = text_only("llama", torch.float32)
    model.lm_head.support_avx512bf16_for_cpu = True
    with pytest.raises(UnsupportedModelError, match="bitsandbytes packs weights of 4 bits anew"):
        Kamera(model, processor)


def test_identity_of_packed_weights() -> None:
    """One scheme has one identity; another, and one that rounds activations as well, has another."""
    torchao: Any = pytest.importorskip("torchao.quantization", reason="needs torchao, which is not installed")

    def quantised(scheme: Any) -> Any:
        model, processor = text_only("llama", torch.bfloat16)
        if scheme:
            torchao.quantize_(model.model, scheme)
        return Kamera(model, processor)

    schemes = (
        None,
        torchao.Int8WeightOnlyConfig(),
        torchao.Int8WeightOnlyConfig(),
        torchao.Int8DynamicActivationInt8WeightConfig(),
        torchao.Float8WeightOnlyConfig(),
    )
    kameras = [quantised(scheme) for scheme in schemes]
    weights = [kamera.family.identity.model["weights"] for kamera in kameras]
    assert weights[1] == weights[2]
    assert len({*weights}) == len(schemes) - 1
    packed = kameras[1].family
    assert scheme_of(packed.model) == "Int8Tensor"
    packed.require_unchanged()
    with torch.no_grad():
        packed.model.model.layers[0].mlp.up_proj.weight.qdata[0, 0] += 1
    with pytest.raises(ModelError, match="weights, the adapters or the options"):
        packed.require_unchanged()
    for kamera in kameras:
        kamera.close()


@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_bitsandbytes(bits: int, tmp_path: Path) -> None:
    """With 4 bits as exact as without. With 8, a layer rounds activations by what else is in the pass, so that two
    passes of plain Hugging Face over halves of a text differ from one over it: ours may differ by twice as much."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes, which is not installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = text_only("qwen3", torch.float32)
    model.save_pretrained(tmp_path)
    options = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    quantised = type(model).from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**options), device_map=device
    )
    for layer in quantised.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    token_ids = torch.arange(60, device=device)[None]
    cache = {cache_argument(quantised): DynamicCache()}
    quantised(token_ids[:, :35], **cache)
    halves = quantised(token_ids[:, 35:], **cache).logits[0, -1]
    noise = max_error(quantised(token_ids).logits[0, -1], halves)
    with Kamera(quantised, processor) as kamera:
        assert scheme_of(kamera.family.model) == f"bitsandbytes {bits} bits{' nf4' if bits == 4 else ''}"
        errors = round_trip(kamera)
    assert errors.computed_error <= (1e-4 if bits == 4 else 2 * noise)


def test_compressed_tensors(tmp_path: Path) -> None:
    """The weights of a checkpoint are decompressed in the first pass of the whole model."""
    parts: Any = pytest.importorskip("compressed_tensors", reason="needs compressed-tensors, which is not installed")
    scheme = parts.quantization
    model, processor = text_only("qwen3", torch.float32)
    weights = scheme.QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    config = scheme.QuantizationConfig(
        config_groups={"all": scheme.QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["lm_head"],
        format="pack-quantized",
    )
    scheme.apply_quantization_config(model, config)
    for layer in model.model.modules():
        if hasattr(layer, "weight_scale"):
            layer.weight_scale.data = layer.weight.abs().amax(1, keepdim=True) / 127
    compressor = parts.compressors.ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    model.save_pretrained(tmp_path)
    compressor.update_config(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    with Kamera.from_pretrained(tmp_path, store=None, device="cpu", dtype=torch.float32) as kamera:
        assert scheme_of(kamera.family.model) == "compressed-tensors"
        errors = round_trip(kamera)
        kamera.family.require_unchanged()
    assert errors.computed_error <= 1e-4


def _packed(format: str, out_features: int, in_features: int) -> dict[str, torch.Tensor]:
    """Seeded random numbers of 4 bits, eight to an integer, as GPTQ packs rows and AWQ columns of the inputs."""
    groups = in_features // GROUP
    rows, columns = (in_features // 8, out_features) if format == "gptq" else (in_features, out_features // 8)
    any_bits = partial(torch.randint, -(2**31), 2**31, generator=torch.Generator().manual_seed(in_features))
    return {
        "qweight": any_bits((rows, columns)).int(),
        "qzeros": any_bits((groups, out_features // 8)).int(),
        "scales": torch.full((groups, out_features), 0.01, dtype=torch.float16),
    } | ({"g_idx": torch.arange(in_features).int() // GROUP} if format == "gptq" else {})


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # Of optimum.
@pytest.mark.parametrize("format", ["gptq", "awq"])
def test_packed_checkpoints(format: str, tmp_path: Path) -> None:
    """Checkpoints of GPTQ and AWQ, whose layers come from gptqmodel."""
    for name in ("gptqmodel", "optimum"):
        pytest.importorskip(name, reason=f"needs {name}, which is not installed")
    model, processor = text_only("qwen3", torch.float32)
    layers = [name for name, layer in model.model.named_modules(prefix="model") if isinstance(layer, torch.nn.Linear)]
    tensors = model.state_dict()
    for name in layers:
        parts = _packed(format, *tensors.pop(f"{name}.weight").shape)
        tensors |= {f"{name}.{part}": values for part, values in parts.items()}
    model.config.quantization_config = PACKED[format] | {"bits": 4, "group_size": GROUP}
    model.config.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    with Kamera.from_pretrained(tmp_path, store=None, device=device, dtype=dtype) as kamera:
        assert scheme_of(kamera.family.model) == f"{format} 4 bits"
        assert kamera.family.model.model.layers[0].mlp.up_proj.qweight.dtype == torch.int32
        errors = round_trip(kamera)
        kamera.family.require_unchanged()
    assert errors.computed_error <= (1e-4 if device == "cpu" else 1e-2)


@pytest.mark.gpu
def test_fp8_on_a_gpu(tmp_path: Path) -> None:
    """The layers compute in FP8, and round the activations of a token by themselves alone."""
    pytest.importorskip("kernels", reason="needs kernels, which is not installed")
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a GPU that computes in FP8")
    _, processor = text_only("qwen3", torch.bfloat16)
    # FP8 has a scale for each block of 128 by 128 weights.
    config = Qwen3Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        head_dim=64,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    model = Qwen3ForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, quantization_config=FineGrainedFP8Config(), device_map="cuda"
    )
    with Kamera(model, processor) as kamera:
        assert scheme_of(kamera.family.model) == "fp8"
        errors = round_trip(kamera)
        kamera.family.require_unchanged()
    assert errors.computed_error <= 0.1
