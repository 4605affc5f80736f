"""Phi-4-multimodal: masked tiles, a vision adapter, longrope."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.hub import has_file

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.image_text import NeedsTorchvision, WrittenByRule, accepted
from kamera_agent.vision.image import Pixels

ADAPTER, ADAPTER_FOLDER = "vision", "vision-lora"


class WithVisionAdapter:
    """Loads the model, and activates its vision adapter if the checkpoint has one beside the weights."""

    @staticmethod
    def from_pretrained(model_id: str, revision: str | None = None, **options: Any) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(model_id, revision=revision, **options)
        if has_file(model_id, f"{ADAPTER_FOLDER}/adapter_config.json", revision):
            # Before transformers 5.24, a subfolder is searched for on the hub only.
            if (folder := Path(model_id, ADAPTER_FOLDER)).is_dir():
                model.load_adapter(str(folder), adapter_name=ADAPTER)
            else:
                place = {"subfolder": ADAPTER_FOLDER, "revision": revision}
                model.load_adapter(model_id, adapter_name=ADAPTER, adapter_kwargs=place)
            model.set_adapter(ADAPTER)
        return model


class Phi4Multimodal(NeedsTorchvision, WrittenByRule):
    """Phi-4-multimodal for images (arXiv 2503.01743)."""

    model_types = ("phi4_multimodal",)
    auto_model = WithVisionAdapter

    def find_text_model(self) -> Any:
        return self.model.model

    @cached_property
    def image_token_id(self) -> int:
        return int(self.model.config.vision_config.image_token_id)

    def expand(self, pixels: Pixels) -> str:
        return self.image_token * int(self.image_inputs([pixels])["num_img_tokens"][0])

    def encoder_outputs(self, chunk: Chunk) -> Any:
        encoder = self.model.model.embed_tokens_extend.image_embed
        token_ids = torch.tensor([chunk.token_ids], device=self.device)
        token_ids = token_ids[token_ids == self.image_token_id][None]
        # The encoder overwrites embeddings, and every one of these is a placeholder.
        embeds = torch.zeros(*token_ids.shape, self.decoder.config.hidden_size, device=self.device)
        return encoder(token_ids, embeds, **accepted(encoder.forward, self.pixel_inputs([chunk])))
