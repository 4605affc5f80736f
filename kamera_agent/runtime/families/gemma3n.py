"""Gemma 3n: shared KV in the last layers, embeddings for each layer."""

from __future__ import annotations

import torch

from kamera_agent.runtime.families.image_text import ImageText
from kamera_agent.runtime.families.per_layer import PerLayer
from kamera_agent.runtime.families.text_only import TextOnly, capped


class Gemma3n(PerLayer, ImageText):
    """Gemma 3n with eyes.

    The blank lines that its processor puts around an image belong to the chunk.
    """

    model_types = ("gemma3n",)

    def text_embeds(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [T, hidden] of tokens; marks of images and sounds have vocabularies of their own."""
        embeds, model = super().text_embeds(token_ids), self.model.model
        vision, audio = model.embed_vision, model.embed_audio
        of_audio = token_ids >= audio.vocab_offset
        of_vision = (token_ids >= vision.vocab_offset) & ~of_audio
        for embedder, chosen in ((vision, of_vision), (audio, of_audio)):
            marks = embedder(input_ids=token_ids.where(chosen, embedder.vocab_offset))
            embeds = marks.to(embeds.dtype).where(chosen[:, None], embeds)
        return embeds

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return capped(super().logits(hidden), self.decoder.config)


class Gemma3nText(PerLayer, TextOnly):
    """The text model of Gemma 3n alone."""

    model_types = ("gemma3n_text",)
