"""What differs between backbones: the contract of a family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from blake3 import blake3
from torch import nn

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.errors import InputError, UnsupportedModelError
from kamera_agent.runtime.kv_pool import KVShape
from kamera_agent.runtime.slot_cache import SlotCache
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels

Run = Chunk | TextRun

NUM_SAMPLES = 64
# A role that no template has, to find what stands before and behind one.
ROLE = "role"


class Processors(NamedTuple):
    """The parts of a Hugging Face processor that a family uses, under the names they have there.

    video_processor is None where torchvision, which it needs, is not installed.
    """

    tokenizer: Any
    image_processor: Any
    video_processor: Any


class Family(ABC):
    """One backbone, behind the words of the design. Holds the model; never changes it.

    model_types: the Hugging Face `config.model_type` values it serves.
    pil_processor: the image processor class that does without torchvision.
    """

    model_types: ClassVar[tuple[str, ...]]
    pil_processor: ClassVar[Any]

    def __init__(self, model: Any, processors: Processors) -> None:
        self.model = model
        self.processors = processors

    @property
    @abstractmethod
    def kv_shape(self) -> KVShape:
        """Layers, key/value heads, head dimension, dtype and device of the KV."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Tokens and positions that a window may hold."""

    @property
    @abstractmethod
    def num_axes(self) -> int:
        """RoPE axes: 1, or 3 for M-RoPE (time, height, width)."""

    @property
    @abstractmethod
    def rotary(self) -> nn.Module:
        """The model's own rotary embedding; its inv_freq is part of the identity."""

    @property
    @abstractmethod
    def key_modules(self) -> Sequence[nn.Module]:
        """Per layer, the module whose output [1, Q, H·D] is the keys before RoPE."""

    @property
    @abstractmethod
    def default_system(self) -> str:
        """System prompt of the model's own chat template."""

    @property
    @abstractmethod
    def anchor_ids(self) -> tuple[int, ...]:
        """The opening tokens that every window begins with: the attention sink."""

    @property
    @abstractmethod
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""

    @property
    @abstractmethod
    def placeholder_ids(self) -> frozenset[int]:
        """Tokens that stand for pixels; a reply never holds one."""

    @abstractmethod
    def open_turn(self, role: str) -> tuple[int, ...]:
        """Tokens that open a turn of a role."""

    @abstractmethod
    def close_turn(self) -> tuple[int, ...]:
        """Tokens that close a turn."""

    @abstractmethod
    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        """The chunk of one image, [H, W, 3] uint8 RGB. Nothing is encoded."""

    @abstractmethod
    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        """The chunk of a group of video frames. Nothing is encoded."""

    @abstractmethod
    def encode(self, chunk: Chunk) -> torch.Tensor:
        """Vision-encoder output for the chunk's placeholders: [num_placeholders, hidden]."""

    @abstractmethod
    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        """Decoder inputs [T, hidden] of a run; features as from encode, None for text."""

    @abstractmethod
    def rope_tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's own cos and sin [T, D] in the KV dtype, for positions [A, T]."""

    @abstractmethod
    def hidden_states(
        self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: SlotCache
    ) -> torch.Tensor:
        """Decoder output [Q, hidden] for embeds [Q, hidden], positions [A, Q] and an additive mask [1, 1, Q, S].

        No mask: queries and first slots are one and the same, in order (only where causal_without_mask).
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [vocab] in float32, for one row of hidden states [hidden]."""

    @abstractmethod
    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        """Next-token logits [vocab] in float32 of the runs in a row, by a plain Hugging Face forward pass."""

    @property
    def causal_without_mask(self) -> bool:
        """Whether attention without a mask is causal and cuts the keys to the number of queries."""
        return bool(self.model.config._attn_implementation == "sdpa")

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of a caller's text, nothing added.

        What looks like a marker in it stays text: a page that says <|im_end|> must not end a turn.
        """
        encoded = self.processors.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

    def markup(self, text: str) -> tuple[int, ...]:
        """Token ids of the chat format's own text, markers and all."""
        return tuple(self.processors.tokenizer(text, add_special_tokens=False)["input_ids"])

    def turns(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[tuple[str, str]]:
        """Role and text of every turn that the model's own chat template makes of messages.

        messages, tools: as apply_chat_template takes them, contents as strings. Texts must hold no markers.
        Raises InputError where the template has no place for tools, UnsupportedModelError where its turns are not
        those of open_turn and close_turn.
        """
        tokenizer = self.processors.tokenizer
        rendered = tokenizer.apply_chat_template(list(messages), tools=list(tools) or None, tokenize=False)
        if tools and tools[0]["function"]["name"] not in rendered:
            raise InputError("The chat template of this model has no place for tools; leave them out.")
        before, after = tokenizer.decode(self.open_turn(ROLE)).split(ROLE)
        *turns, rest = rendered.split(tokenizer.decode(self.close_turn()))
        heads = [turn.removeprefix(before).partition(after) for turn in turns]
        if rest or not all(turn.startswith(before) and head[1] for turn, head in zip(turns, heads, strict=True)):
            raise UnsupportedModelError(
                f"The chat template writes turns otherwise than {before}role{after}: {rendered[:200]!r}. "
                "Use windows instead of messages."
            )
        return [(role, text) for role, _, text in heads]

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.processors.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def positions(self, run: Run, start: int) -> torch.Tensor:
        """Positions [A, T] of a run that starts at `start`."""
        if isinstance(run, Chunk):
            return run.offsets + start
        return torch.arange(start, start + run.extent).expand(self.num_axes, -1)

    def identity(self) -> dict[str, Any]:
        """Everything about the model that its KV depends on, as JSON facts. Taken once, at load."""
        config = self.model.config
        adapters = sorted(getattr(self.model, "peft_config", {}))
        return {
            "model_id": config._name_or_path,
            "revision": getattr(config, "_commit_hash", None),
            "weights": digest_tensors(dict(self.model.named_parameters())),
            "adapters": adapters and [adapters, sorted(self.model.active_adapters())],
            "dtype": str(self.kv_shape.dtype),
            "attention": config._attn_implementation,
            "inv_freq": digest_tensors(dict(self.rotary.named_buffers())),
            "anchor": list(self.anchor_ids),
        }


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """BLAKE3 over names, shapes and an even sample of every tensor: fast, and moved by any training step."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // NUM_SAMPLES)].float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
