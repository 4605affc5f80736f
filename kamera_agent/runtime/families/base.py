"""What differs between backbones: the contract of a family."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import transformers
from blake3 import blake3
from transformers import AutoModelForImageTextToText, AutoProcessor

from kamera_agent.chunk import Chunk, ChunkKind, Run
from kamera_agent.errors import InputError, UnsupportedModelError
from kamera_agent.runtime.families.chat import ChatFormat, Template, turns_of
from kamera_agent.runtime.families.decoder import decoder_of
from kamera_agent.runtime.slot_cache import SlotCache
from kamera_agent.vision.fingerprint import chunk_key, fingerprint_frames, fingerprint_image, fingerprint_tokens
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels

NUM_SAMPLES = 64
NO_PIXELS: Pixels = np.empty((0, 0, 3), np.uint8)


class Processors(NamedTuple):
    """The parts of a Hugging Face processor that a family uses, under the names they have there.

    image_processor is None for a model without eyes; video_processor where torchvision, which it needs, is not
    installed. whole: the processor itself, None where only its parts could be loaded.
    """

    tokenizer: Any
    image_processor: Any
    video_processor: Any
    whole: Any = None


class Family(ABC):
    """One backbone, behind the words of the design. Holds the model; changes nothing of it.

    model_types: the Hugging Face `config.model_type` values it serves.
    auto_model: the class that loads its checkpoints.
    """

    model_types: ClassVar[tuple[str, ...]]
    auto_model: ClassVar[Any] = AutoModelForImageTextToText
    has_eyes: ClassVar[bool] = True
    # RoPE axes: 1, or 3 for M-RoPE (time, height, width).
    num_axes: ClassVar[int] = 1

    def __init__(self, model: Any, processors: Processors) -> None:
        self.model = model
        self.processors = processors
        self.decoder = decoder_of(self.find_decoder())

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        """The processor of a checkpoint."""
        return AutoProcessor.from_pretrained(model_id, revision=revision)

    def find_decoder(self) -> Any:
        """The text model inside the model. Raises UnsupportedModelError for a wrapper around it."""
        inner = getattr(self.model, "model", None)
        if decoder := getattr(inner, "language_model", None):
            return decoder
        raise UnsupportedModelError(
            f"{type(self.model).__name__} is a wrapper; pass the model itself, with adapters loaded by "
            "model.load_adapter() or merged."
        )

    @property
    @abstractmethod
    def placeholder_ids(self) -> frozenset[int]:
        """Tokens that stand for pixels; a reply never holds one."""

    @abstractmethod
    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        """The chunk of one image, [H, W, 3] uint8 RGB. Nothing is encoded."""

    @abstractmethod
    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        """The chunk of a group of video frames. Nothing is encoded."""

    @abstractmethod
    def encode(self, chunk: Chunk) -> torch.Tensor:
        """Vision-encoder output for the chunk's placeholders: [num_placeholders, features]."""

    @abstractmethod
    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        """Next-token logits [vocab] in float32 of the runs in a row, by a plain Hugging Face forward pass."""

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        """Decoder inputs [T, hidden] of a run; features as from encode, None for text, which has no placeholders."""
        token_ids = torch.tensor(run.token_ids, dtype=torch.long, device=self.decoder.device)
        table = self.decoder.module.get_input_embeddings()
        if features is None:
            text: torch.Tensor = table(token_ids)
            return text
        placeholders = self.placeholders(run)
        # A placeholder may lie outside the vocabulary.
        embeds: torch.Tensor = table(token_ids.masked_fill(placeholders, 0))
        embeds[placeholders] = features
        return embeds

    def placeholders(self, run: Run) -> torch.Tensor:
        """Which tokens [T] bool of a run stand for pixels."""
        token_ids = torch.tensor(run.token_ids, device=self.decoder.device)
        return torch.isin(token_ids, torch.tensor(sorted(self.placeholder_ids), device=token_ids.device))

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Of what embed returned, B rows [B, Q, ...]: [B, Q, hidden] to begin with, what else the decoder is told."""
        return embeds, {}

    def hidden_states(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        masks: Mapping[str, torch.Tensor] | None,
        cache: SlotCache,
    ) -> torch.Tensor:
        """Decoder output [Q, hidden] for embeds as from embed, positions [A, Q] and masks as Decoder takes them."""
        first, extras = self.unpack(embeds[None])
        return self.decoder.hidden_states(first[0], positions, masks, cache, **extras)

    def both_ways(self, run: Run) -> torch.Tensor | None:
        """Which tokens [T] bool of a run see each other whatever their order, neighbours among themselves.

        None where attention is causal.
        """
        return None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [vocab] in float32, for one row of hidden states [hidden]."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        return logits.float()

    @cached_property
    def template(self) -> Template:
        """The model's chat template."""
        return Template(self.processors.whole, self.processors.tokenizer)

    @cached_property
    def chat(self) -> ChatFormat:
        """How the model's chat template writes turns. Raises UnsupportedModelError, ModelError."""
        return ChatFormat.of(self.template)

    @property
    def default_system(self) -> str:
        """System prompt of the model's own chat template; empty where it has none."""
        return self.chat.default_system

    @cached_property
    def anchor_ids(self) -> tuple[int, ...]:
        """The opening tokens that every window begins with: the attention sink."""
        system, plain = (self._opening(text.rstrip(" ")) for text in (self.chat.opening, self.chat.plain))
        if self.default_system:
            return system
        return tuple(one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(system, plain, strict=False)))

    def _opening(self, text: str) -> tuple[int, ...]:
        """Tokens of the first markup, with what the tokenizer, not the template, puts in front."""
        tokenizer, token_ids = self.processors.tokenizer, self.markup(text)
        added = tuple(tokenizer("")["input_ids"])
        start = added if added == (tokenizer.bos_token_id,) else ()
        return token_ids if token_ids[: len(start)] == start else start + token_ids

    def turn(self, before: str | None, role: str, *, text_follows: bool = False) -> tuple[int, ...]:
        """Tokens that close a turn of one role, or follow the anchor, and open one of another.

        text_follows: leaves a space at the end to the text, as tokenizers do.
        """
        written = self.chat.turn(before, role)
        if text_follows:
            written = written.removesuffix(" ")
        return self.markup(written) if before else self._opening(written)[len(self.anchor_ids) :]

    def first_words(self, before: str | None, role: str, text: str) -> tuple[int, ...]:
        """Tokens of a text that begins a turn, behind what `turn` gives with text_follows."""
        spaced = self.chat.turn(before, role).endswith(" ") and self._spaces_are_text
        return self.tokenize(f" {text}" if spaced else text)

    @cached_property
    def _spaces_are_text(self) -> bool:
        """Whether a space must be written before a word to get its tokens inside a text; some put it there anyway."""
        return self.tokenize(": word") == self.tokenize(":") + self.tokenize(" word")

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        tokenizer = self.processors.tokenizer
        closing = {*self.turn("assistant", "user")[:1]} & {*tokenizer.all_special_ids}
        return frozenset({token for token in (*listed, tokenizer.eos_token_id) if token is not None} | closing)

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
        """Role and text of every turn that the model's own chat template makes of messages, as turns_of gives them."""
        return turns_of(self.template, self.chat, self.processors.tokenizer.all_special_tokens, messages, tools)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.processors.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def positions(self, run: Run, start: int) -> torch.Tensor:
        """Positions [A, T] of a run that starts at `start`."""
        if isinstance(run, Chunk):
            return run.offsets + start
        return torch.arange(start, start + run.extent).expand(self.num_axes, -1)

    def document_chunk(self, text: str, namespace: str) -> Chunk:
        """The chunk of a text. Raises InputError for a text without tokens."""
        if not (token_ids := self.tokenize(text)):
            raise InputError("The document has no tokens; leave it out.")
        offsets = torch.arange(len(token_ids)).expand(self.num_axes, -1)
        return self.new_chunk("document", NO_PIXELS, namespace, token_ids, offsets)

    def new_chunk(
        self,
        kind: ChunkKind,
        pixels: Pixels,
        namespace: str,
        token_ids: Sequence[int],
        offsets: torch.Tensor,
        *,
        timestamps: Sequence[float] = (),
        grid: tuple[int, int, int] = (0, 0, 0),
        seconds_per_grid: float | None = None,
    ) -> Chunk:
        """Join the facts of a chunk and make its key. offsets: positions [A, T] of its tokens from its start."""
        match kind:
            case "image":
                digest = fingerprint_image(pixels)
            case "frames":
                digest = fingerprint_frames(pixels, timestamps)
            case "document":
                digest = fingerprint_tokens(token_ids)
        key = chunk_key(
            kind=kind,
            pixels_digest=digest,
            shape=pixels.shape if pixels.size else (),
            timestamps=timestamps,
            model_identity=self._identity,
            processor_identity=self._processor_identity,
            namespace=namespace,
        )
        # What follows starts right behind the last token, even where a clip's time ran further.
        extent = int(offsets[0, -1]) + 1
        return Chunk(key, kind, tuple(token_ids), offsets, extent, pixels, grid, seconds_per_grid)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return self.identity()

    @cached_property
    def _processor_identity(self) -> dict[str, Any]:
        parts = {"image": self.processors.image_processor, "video": self.processors.video_processor}
        facts = {
            name: part and [type(part).__name__, json.loads(part.to_json_string())] for name, part in parts.items()
        }
        return {"transformers": transformers.__version__, **facts}

    def identity(self) -> dict[str, Any]:
        """Everything about the model that its KV depends on, as JSON facts. Taken once, at load."""
        config = self.model.config
        adapters = sorted(getattr(self.model, "peft_config", {}))
        return {
            "model_id": config._name_or_path,
            "revision": getattr(config, "_commit_hash", None),
            "weights": digest_tensors(dict(self.model.named_parameters())),
            "adapters": adapters and [adapters, sorted(self.model.active_adapters())],
            "dtype": str(self.decoder.kv_shape.dtype),
            "attention": config._attn_implementation,
            "inv_freq": digest_tensors(self.decoder.frequencies),
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
