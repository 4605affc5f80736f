"""What differs between backbones: the contract of a family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from kamera_agent.chunk import Chunk, Run
from kamera_agent.errors import InputError, ModelError, UnsupportedModelError
from kamera_agent.runtime.families.chat import Chat
from kamera_agent.runtime.families.chunks import NO_PIXELS, make_chunk
from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.families.decoders import decoder_of
from kamera_agent.runtime.families.identity import Identity, state_of
from kamera_agent.runtime.families.placement import device_of
from kamera_agent.runtime.families.processors import Processors
from kamera_agent.runtime.families.template import Template
from kamera_agent.runtime.families.text_parts import WRAPPER
from kamera_agent.runtime.families.tokens import Tokens
from kamera_agent.runtime.kernels.slots import Index, index_of
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.runtime.slot_cache import SlotCache
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class Family(ABC):
    """One backbone, in the words of the design. Holds the model and changes nothing in it.

    model_types: the Hugging Face `config.model_type` values it serves.
    auto_model: the class that loads its checkpoints.
    tokens: its tokenizer. text_model: the Hugging Face module of its text model.
    secret: 32 bytes that the keys of chunks depend on; to be set before the first chunk is made.
    """

    model_types: ClassVar[tuple[str, ...]]
    auto_model: ClassVar[Any] = AutoModelForImageTextToText
    has_eyes: ClassVar[bool] = True
    # RoPE axes: 1, or 3 for M-RoPE (time, height, width).
    num_axes: ClassVar[int] = 1

    def __init__(self, model: Any, processors: Processors) -> None:
        self.model = model
        self.processors = processors
        self.tokens = Tokens(processors.tokenizer)
        self.text_model = self.find_text_model()
        self.secret: bytes | None = None

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        """The processor of a checkpoint."""
        return AutoProcessor.from_pretrained(model_id, revision=revision)

    @classmethod
    def load_options(cls, config: Any) -> dict[str, Any]:
        """Options of from_pretrained for a model of this configuration.

        Raises UnsupportedModelError where the configuration shows that the model cannot be served.
        """
        return {"attn_implementation": "sdpa"}

    def find_text_model(self) -> Any:
        """The text model inside the model. Raises UnsupportedModelError for a wrapper around it."""
        inner = getattr(self.model, "model", None)
        if decoder := getattr(inner, "language_model", None):
            return decoder
        raise UnsupportedModelError(WRAPPER.format(type(self.model).__name__))

    @cached_property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return device_of(self.model)

    @cached_property
    def decoder(self) -> Decoder:
        """The text model's keys, tables and forward pass. Raises UnsupportedModelError."""
        return decoder_of(self.text_model)

    @cached_property
    def chat(self) -> Chat:
        """The model's chat format in tokens. Raises ModelError for a checkpoint without a chat template."""
        template = Template(self.processors.whole, self.processors.tokenizer)
        return Chat(template, self.tokens, self.model.generation_config)

    @cached_property
    def identity(self) -> Identity:
        """Everything that KV depends on besides the chunk."""
        self._state = state_of(self.model, self.processors)
        return self._take_identity()

    def require_unchanged(self) -> None:
        """Raise ModelError where the weights, the adapters or a processor are no longer those of `identity`.

        Checked at every answer: KV of before would be used, and stored under the wrong key.
        """
        taken, state = self.identity, state_of(self.model, self.processors)
        if state == self._state:
            return
        if self._take_identity() != taken:
            raise ModelError(
                "The weights, the adapters or the options of a processor were changed after the model was loaded. "
                "Change them back, or make a new Kamera over the changed model."
            )
        self._state = state

    def _take_identity(self) -> Identity:
        facts = Identity.of(self.model, self.decoder, self.processors, self.chat.anchor_ids, self.process)
        return facts._replace(secret=self.secret)

    def process(self, pixels: Pixels) -> Mapping[str, Any]:
        """What the encoder gets for an image [H, W, 3] or frames [N, H, W, 3]; empty for a model without eyes."""
        return {}

    @property
    @abstractmethod
    def placeholder_ids(self) -> frozenset[int]:
        """Tokens whose embeddings are replaced by encoder output; a reply never contains one."""

    @abstractmethod
    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        """The chunk of one image, [H, W, 3] uint8 RGB. Nothing is encoded."""

    @abstractmethod
    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        """The chunk of a group of video frames. Nothing is encoded."""

    def document_chunk(self, text: str, namespace: str) -> Chunk:
        """The chunk of a text. Raises InputError for a text without tokens."""
        if not (token_ids := self.tokens.encode(text)):
            raise InputError("The document has no tokens; leave it out.")
        offsets = torch.arange(len(token_ids)).expand(self.num_axes, -1)
        return make_chunk(self.identity, "document", NO_PIXELS, namespace, token_ids, offsets)

    @abstractmethod
    def encode(self, chunk: Chunk) -> torch.Tensor:
        """Vision-encoder output for the chunk's placeholders: [num_placeholders, features]."""

    @abstractmethod
    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        """Next-token logits [vocab] in float32 of the runs in a row, by a plain Hugging Face forward pass."""

    def placeholders(self, run: Run) -> torch.Tensor:
        """Mask [T] bool, on the CPU, of the tokens of a run that are placeholders."""
        return torch.isin(torch.tensor(run.token_ids), torch.tensor(sorted(self.placeholder_ids)))

    def placeholder_rows(self, run: Run) -> Index:
        """The placeholders of a picture among its tokens."""
        return index_of(self.placeholders(run).nonzero()[:, 0], self.decoder.device)

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        """Decoder inputs [T, hidden] of a run; features as from encode, None for text, which has no placeholders."""
        token_ids = torch.tensor(run.token_ids, dtype=torch.long)
        if features is None:
            return self.text_embeds(sent(token_ids, self.decoder.device))
        # A placeholder may be outside the vocabulary.
        text_ids = token_ids.masked_fill(self.placeholders(run), 0)
        embeds = self.text_embeds(sent(text_ids, self.decoder.device))
        embeds[self.placeholder_rows(run)] = features.to(embeds.device)
        return embeds

    def text_embeds(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [T, hidden] of tokens [T] of text."""
        embeds: torch.Tensor = self.decoder.module.get_input_embeddings()(token_ids)
        return embeds

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Split B rows of what embed returned, [B, Q, ...], into embeddings [B, Q, hidden] and other decoder inputs."""
        return embeds, {}

    def hidden_states(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        masks: Mapping[str, torch.Tensor],
        cache: SlotCache,
    ) -> torch.Tensor:
        """Decoder output [Q, hidden] for embeds as from embed, positions [A, Q] and masks as Decoder takes them."""
        first, extras = self.unpack(embeds[None])
        return self.decoder.hidden_states(first[0], positions, masks, cache, **extras)

    def tiles(self, chunk: Chunk) -> torch.Tensor | None:
        """What the encoder gets for each placeholder of an image, [num_placeholders, values], in order.

        None where a placeholder does not belong to a tile of a fixed grid.
        """
        return None

    def both_ways(self, run: Run) -> torch.Tensor | None:
        """Mask [T] bool of the tokens of a run that also see later neighbours of their kind; None: all are causal."""
        return None

    def computed_whole(self, run: Run) -> bool:
        """Whether a run can be computed only as a whole: tokens see later ones, or a recurrent state passes through."""
        return self.decoder.recurrence is not None or self.both_ways(run) is not None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [..., vocab] in float32, for rows of hidden states [..., hidden]."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        return logits.float()

    def positions(self, run: Run, start: int) -> torch.Tensor:
        """Positions [A, T] of a run that starts at `start`."""
        if isinstance(run, Chunk):
            return run.offsets + start
        return torch.arange(start, start + run.extent).expand(self.num_axes, -1)
