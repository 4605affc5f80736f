"""What the KV of a chunk depends on besides the chunk itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from blake3 import blake3

from kamera_agent.runtime.bank import KVShape
from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.families.placement import offloaded
from kamera_agent.runtime.families.processors import Processors
from kamera_agent.runtime.families.quantisation import unpacked
from kamera_agent.vision.image import Pixels

NUM_SAMPLES = 64
# Frames [N, H, W, 3] that every processor is shown. From a hash, so that they are the same everywhere.
FRAMES_SHAPE = (2, 56, 84, 3)
# Fields of configurations and processors that do not change KV: who made a checkpoint and with what, how attention is
# computed, what a forward pass returns. dtype is that of the weights, whose digest covers it. Any other field counts.
BOOKKEEPING = frozenset(
    {
        "_commit_hash",
        "_name_or_path",
        "_processor_class",
        "architectures",
        "attn_implementation",
        "auto_map",
        "dtype",
        "feature_extractor_type",
        "id2label",
        "image_processor_type",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "processor_class",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "video_processor_type",
    }
)


class Identity(NamedTuple):
    """A model and its processors, as JSON facts. Taken once; `state_of` tells whether it may have changed.

    secret: 32 bytes that the keys of chunks depend on as well.
    """

    model: Mapping[str, Any]
    processors: Mapping[str, Any]
    secret: bytes | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        decoder: Decoder,
        processors: Processors,
        anchor_ids: Sequence[int],
        process: Callable[[Pixels], Mapping[str, Any]],
    ) -> Self:
        """Facts of a loaded model. process: what the encoder gets for an image [H, W, 3] or frames [N, H, W, 3]."""
        weights = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
        weights |= offloaded(model)
        facts = {
            "config": _essential(json.loads(model.config.to_json_string(use_diff=False))),
            "weights": digest_tensors(weights, NUM_SAMPLES),
            "adapters": _adapters(model),
            "kv": _kept(decoder.shapes),
            "inv_freq": digest_tensors(decoder.frequencies, NUM_SAMPLES),
            "anchor": list(anchor_ids),
        }
        parts = {"image": processors.image_processor, "video": processors.video_processor}
        options = {name: part and _essential(json.loads(part.to_json_string())) for name, part in parts.items()}
        return cls(facts, {**options, **_digests(process)})


def state_of(model: Any, processors: Processors) -> tuple[Any, ...]:
    """What differs after a change of the weights, the adapters or a processor. Much cheaper than an Identity.

    A change of numbers is seen where torch counts it; writes through `.data`, which it does not count, are not.
    """
    elsewhere = offloaded(model)
    # Tensors made in inference mode have no counter, and cannot be changed outside it.
    weights = hash(
        tuple(
            (id(weight), weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
            for name, parameter in model.named_parameters()
            for _, weight in unpacked("", elsewhere.get(name, parameter))
        )
    )
    parts = processors.image_processor, processors.video_processor
    return weights, repr(_adapters(model)), *(part and part.to_json_string() for part in parts)


def _adapters(model: Any) -> list[Any]:
    """Names of the adapters, of those that are active, and of those that were merged; whether they are switched off."""
    names = sorted(getattr(model, "peft_config", {}))
    if not names:
        return []
    layers = [layer for layer in model.modules() if hasattr(layer, "merged_adapters")]
    facts: list[Any] = [names, sorted(model.active_adapters())]
    merged = sorted({name for layer in layers for name in layer.merged_adapters})
    is_off = any(layer.disable_adapters for layer in layers)
    return [*facts, merged, is_off] if merged or is_off else facts


def _kept(shapes: Sequence[KVShape]) -> list[Any]:
    """What the layers keep, whatever their kind and wherever they are."""
    alike = Counter[tuple[Any, ...]]()
    for shape in shapes:
        alike[shape.keys, shape.values, shape.pairs, str(shape.dtype)] += len(shape.layers)
    facts = [[num_layers, *heads] for heads, num_layers in alike.items()]
    return facts if len(facts) > 1 else facts[0]


def _essential(value: Any) -> Any:
    """A JSON value without the bookkeeping fields of its objects."""
    if isinstance(value, dict):
        return {name: _essential(part) for name, part in value.items() if name not in BOOKKEEPING}
    return [_essential(part) for part in value] if isinstance(value, list) else value


def _digests(process: Callable[[Pixels], Mapping[str, Any]]) -> dict[str, str]:
    """Digests of what becomes of the frames and of the first of them: other code may resize in another way."""
    num_bytes = int(np.prod(FRAMES_SHAPE))
    frames = np.frombuffer(bytearray(blake3(b"frames").digest(num_bytes)), np.uint8).reshape(FRAMES_SHAPE)
    outputs = {"picture": process(frames[0]), "clip": process(frames)}
    return {name: digest_tensors(dict(_tensors("", batch))) for name, batch in outputs.items()}


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors and numbers in nested mappings and sequences, each as a tensor with its path."""
    if not isinstance(value, (Mapping, list, tuple)):
        yield name, torch.as_tensor(value)
        return
    for place, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _tensors(f"{name}/{place}", part)


def digest_tensors(tensors: Mapping[str, torch.Tensor], num_samples: int | None = None) -> str:
    """BLAKE3 over names, dtypes, shapes and bytes, which tells quantised tensors apart as well.

    num_samples: take this number of even samples of each tensor, and up to twice as many: fast, and changed by any
        training step. None takes every number.
    """
    digest = blake3()
    for name, tensor in sorted(part for item in tensors.items() for part in unpacked(*item)):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // num_samples) if num_samples else 1
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(flat[::step].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
