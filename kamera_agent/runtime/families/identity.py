"""What the KV of a chunk depends on besides the chunk itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
import transformers
from blake3 import blake3

from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.families.processors import Processors

NUM_SAMPLES = 64


class Identity(NamedTuple):
    """A model and its processors, as JSON facts. Taken once; a change after that is not seen."""

    model: Mapping[str, Any]
    processors: Mapping[str, Any]

    @classmethod
    def of(cls, model: Any, decoder: Decoder, processors: Processors, anchor_ids: Sequence[int]) -> Self:
        """Facts of a loaded model."""
        config, adapters = model.config, sorted(getattr(model, "peft_config", {}))
        facts = {
            "model_id": config._name_or_path,
            "revision": getattr(config, "_commit_hash", None),
            "weights": digest_tensors(dict(model.named_parameters())),
            "adapters": adapters and [adapters, sorted(model.active_adapters())],
            "dtype": str(decoder.kv_shape.dtype),
            "attention": config._attn_implementation,
            "inv_freq": digest_tensors(decoder.frequencies),
            "anchor": list(anchor_ids),
        }
        parts = {"image": processors.image_processor, "video": processors.video_processor}
        options = {
            name: part and [type(part).__name__, json.loads(part.to_json_string())] for name, part in parts.items()
        }
        return cls(facts, {"transformers": transformers.__version__, **options})


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """BLAKE3 over names, shapes and an even sample of every tensor: fast, and changed by any training step."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // NUM_SAMPLES)].float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
