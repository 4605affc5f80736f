"""Text models: a chunk is a document."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kamera_agent.chunk import Chunk, Run
from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.families.decoders import DECODERS
from kamera_agent.runtime.families.latent import LatentDecoder
from kamera_agent.runtime.families.learned import LearnedDecoder
from kamera_agent.runtime.families.text_parts import check_parts, is_latent, text_model_of
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class TextOnly(Family):
    """Causal text models.

    Every type is served whose layers are made of the usual parts; how it makes its keys is learned from it.
    """

    # None is listed: find_family asks whether a type is one of a causal text model.
    model_types: ClassVar[tuple[str, ...]] = ()
    auto_model = AutoModelForCausalLM
    has_eyes = False
    placeholder_ids = frozenset()

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        return AutoTokenizer.from_pretrained(model_id, revision=revision)

    @classmethod
    def load_options(cls, config: Any) -> dict[str, Any]:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
        if config.model_type not in DECODERS:
            check_parts(text_model_of(model))
        return {"attn_implementation": "sdpa" if model._supports_sdpa else "eager"}

    @cached_property
    def decoder(self) -> Decoder:
        if listed := DECODERS.get(self.text_model.config.model_type):
            return listed(self.text_model)
        check_parts(self.text_model)
        return LatentDecoder(self.text_model) if is_latent(self.text_model) else LearnedDecoder(self.text_model)

    def find_text_model(self) -> Any:
        return text_model_of(self.model)

    def image_chunk(self, pixels: Pixels, namespace: str) -> NoReturn:
        raise self._blind("image")

    def frames_chunk(self, frames: Frames, namespace: str) -> NoReturn:
        raise self._blind("clip")

    def _blind(self, kind: str) -> InputError:
        return InputError(f"{type(self.model).__name__} reads text only and cannot see an {kind}; use add_document.")

    def encode(self, chunk: Chunk) -> NoReturn:
        raise self._blind(chunk.kind)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        config, logits = self.decoder.config, super().logits(hidden)
        # What the heads of Cohere, Granite, HyperCLOVA X and Gemma do after their last layer.
        scaling = getattr(config, "logits_scaling", None) or 1
        scaling = 1 / scaling if config.model_type != "hyperclovax" else scaling
        return capped(logits * (getattr(config, "logit_scale", None) or 1) * scaling, config)

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        return self.plain_logits([token for run in runs for token in run.token_ids])[-1].float()

    def plain_logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Logits [T, vocab] after each of the tokens, by a plain Hugging Face forward pass."""
        inputs = torch.tensor([token_ids], device=self.device)
        logits: torch.Tensor = self.model(input_ids=inputs, use_cache=False).logits[0]
        return logits


def capped(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Logits, capped where the configuration says so."""
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
