"""Which causal text models of the installed transformers are served, and how exactly.

    python -m benchmarks.backbones.text_types [MODEL_TYPE ...]

One small model per type, with seeded random weights in float32 and a sliding window of 11 tokens where it has one. Its
window has three documents and a question. The errors are those of logits against a plain Hugging Face forward pass,
relative to the largest logit: of a computed window; of one whose first document was dropped, so that the others moved,
and recalled; of a window that was recalled at full rank; and of one that was reordered with fidelity="exact".
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from benchmarks.backbones.zoo.parts import LATENT, build, shake_vectors, text_config, tokenizer
from benchmarks.backbones.zoo.text_only import TEMPLATE
from kamera_agent import Kamera, UnsupportedModelError, Window
from kamera_agent.errors import ConventionError

DOCUMENTS = ["alice has 3 red keys", "rent 5, tax 7, sale 11", "the cook said no"]
QUESTION = "what changed?"
# Settings under all names that types have for them.
OPTIONS = {
    "sliding_window": 11,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
}


LATENT_TYPES = dict.fromkeys(
    ("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "sarvam_mla", "youtu"), LATENT
)
# What the configurations of other kinds of models answer to them.
NOT_BUILT = AssertionError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError, StrictDataclassError
MAX_PARAMETERS = 50_000_000


def main() -> None:
    torch.set_num_threads(1)
    seeing = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    for model_type in sys.argv[1:] or [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in seeing]:
        print(f"{model_type:24}{_line(model_type)}", flush=True)


def _line(model_type: str) -> str:
    try:
        model, words = _build(model_type)
    except NOT_BUILT as error:
        return f"not built: {type(error).__name__}"
    try:
        return "".join(f"{error:>10.1e}" for error in measure(model, words))
    except (UnsupportedModelError, ConventionError) as error:
        return f"refused: {error}"
    except RuntimeError as error:
        return f"failed: {error}"


def _build(model_type: str) -> tuple[Any, Any]:
    words = tokenizer(["<s>", "</s>"], bos="<s>", eos="</s>")
    words.chat_template = TEMPLATE
    config = AutoConfig.for_model(**text_config(words, model_type, **OPTIONS | LATENT_TYPES.get(model_type, {})))
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        if model_class._from_config(config).num_parameters() > MAX_PARAMETERS:
            raise ValueError(f"{model_type} is not small.")
    return shake_vectors(build(model_class, config, torch.float32)), words


def measure(model: Any, words: Any) -> tuple[float, float, float, float]:
    """Errors of a window that was computed, moved away and back, recalled, and reordered with fidelity="exact"."""
    with Kamera(model, words) as kamera:
        window, documents = _read(kamera)
        computed = _error(window)
        kamera.flush()
        window.drop(documents[0])
        window.logits(QUESTION)
        window.recall(documents[0], at=documents[1])
        moved = _error(window)
        with Kamera(model, words, kamera.store) as other:
            recalled = _error(_read(other)[0])
    with Kamera(model, words, fidelity="exact") as kamera:
        window, documents = _read(kamera)
        window.logits(QUESTION)
        window.reorder([documents[2], documents[0], documents[1]])
        return computed, moved, recalled, _error(window)


def _read(kamera: Kamera) -> tuple[Window, list[str]]:
    window = kamera.window()
    return window, [window.add_document(document) for document in DOCUMENTS]


def _error(window: Window) -> float:
    logits, expected = window.logits(QUESTION), window.reference_logits(QUESTION)
    return float((logits - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
