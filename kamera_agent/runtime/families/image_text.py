"""Backbones whose processor writes an image as a run of tokens, at consecutive positions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch

from kamera_agent.chunk import Chunk, Run
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.chunks import make_chunk
from kamera_agent.runtime.families.identity import Identity
from kamera_agent.runtime.families.processors import LAYOUT, load_parts, require_torchvision, sizing
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class ImageText(Family):
    """The design of LLaVA (arXiv 2304.08485): encoder outputs replace placeholders, with plain RoPE.

    The tokens of a chunk are those that the model's own processor writes for its pixels. Frames of a clip are written
    as images in a row.
    """

    # Configurations call it image_token_id, older ones image_token_index.
    token_names: ClassVar[tuple[str, ...]] = ("image_token_id", "image_token_index")

    @cached_property
    def image_token_id(self) -> int:
        """The placeholder of one row of encoder output."""
        config = self.model.config
        return int(next(getattr(config, name) for name in self.token_names if hasattr(config, name)))

    @property
    def image_token(self) -> str:
        """The token of an image in a prompt for the processor."""
        return str(self.processors.whole.image_token)

    @cached_property
    def image_text(self) -> str:
        """The text of an image in a prompt: the token, and what the chat template puts around it."""
        return self.chat.template.image_text(self.image_token)

    @property
    def image_options(self) -> Mapping[str, Any]:
        """Options that the whole processor passes to its image processor."""
        return {}

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.image_token_id})

    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        with sizing(self.processors.image_processor, pixels):
            token_ids = self._written(*pixels.shape[:2])
        return make_chunk(self.identity, "image", pixels, namespace, token_ids, _in_a_row(len(token_ids)))

    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        with sizing(self.processors.image_processor, frames.pixels):
            token_ids = self.write_frames(frames)
        offsets = _in_a_row(len(token_ids))
        return make_chunk(
            self.identity, "frames", frames.pixels, namespace, token_ids, offsets, timestamps=frames.timestamps
        )

    @cached_property
    def _writings(self) -> dict[tuple[int, int], tuple[int, ...]]:
        return {}

    def _written(self, height: int, width: int) -> tuple[int, ...]:
        """Tokens of an image of this size. The processor runs once per size."""
        if (height, width) not in self._writings:
            blank = np.zeros((height, width, 3), np.uint8)
            self._writings[height, width] = self.write(blank)
        return self._writings[height, width]

    def write(self, pixels: Pixels) -> tuple[int, ...]:
        """Tokens that the processor writes for an image, markers and placeholders."""
        prompt = {"text": [self.image_text], "images": [pixels]}
        batch = self.processors.whole(**prompt, **LAYOUT, add_special_tokens=False)
        return tuple(batch["input_ids"][0].tolist())

    def write_frames(self, frames: Frames) -> tuple[int, ...]:
        """Tokens of a clip."""
        return self._written(*frames.pixels.shape[1:3]) * len(frames.pixels)

    def encode(self, chunk: Chunk) -> torch.Tensor:
        features = rows_of(self.encoder_outputs(chunk))
        expected = sum(token in self.placeholder_ids for token in chunk.token_ids)
        if len(features) != expected:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} encoded an image in {len(features)} rows, and its processor wrote "
                f"{expected} placeholders for them. Use the checkpoint's own processor."
            )
        return features.to(self.decoder.dtype)

    def encoder_outputs(self, chunk: Chunk) -> Any:
        """Encoder outputs for a chunk's pixels: one tensor, or one per image."""
        encoder = self.model.model.get_image_features
        return encoder(**accepted(encoder, self.pixel_inputs([chunk])), return_dict=True).pooler_output

    def process(self, pixels: Pixels) -> Mapping[str, Any]:
        return self.image_inputs([pixels] if pixels.ndim == 3 else list(pixels))

    def pixel_inputs(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """Inputs of a forward pass of the model for the pixels of one or more chunks."""
        return self.image_inputs([still for chunk in chunks for still in stills(chunk)])

    def image_inputs(self, images: Sequence[Pixels], **options: Any) -> dict[str, Any]:
        """Outputs of the image processor, on the model's device, with floats in its dtype."""
        options = {**LAYOUT, **self.image_options, **options}
        batch = self.processors.image_processor(images=list(images), **options)
        return {name: self._moved(value) for name, value in batch.items()}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        dtype = self.model.dtype if value.is_floating_point() else value.dtype
        return sent(value.to(dtype), self.device)

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        token_ids = torch.tensor([[token for run in runs for token in run.token_ids]], device=self.device)
        chunks = [run for run in runs if isinstance(run, Chunk) and run.has_pixels]
        inputs = accepted(self.model.forward, self.pixel_inputs(chunks)) if chunks else {}
        output = self.model(input_ids=token_ids, use_cache=False, **inputs, **self.reference_inputs(token_ids))
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def reference_inputs(self, token_ids: torch.Tensor) -> dict[str, Any]:
        """Inputs of a plain forward pass of the model besides token ids [1, T] and pixels."""
        return {}

    def _take_identity(self) -> Identity:
        identity = super()._take_identity()
        return identity._replace(model={**identity.model, "image_text": self.image_text})


class NeedsTorchvision(ImageText):
    """An ImageText whose image processor cannot do without torchvision."""

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        require_torchvision(cls)
        return super().load_processor(model_id, revision)


class WrittenByRule(ImageText):
    """An ImageText that works without the whole processor, which may need torchvision although images do not.

    Subclasses write what that processor would write.
    """

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        try:
            return super().load_processor(model_id, revision)
        except (ImportError, ValueError):  # transformers reports a missing torchvision in either way.
            return load_parts(model_id, revision)

    @property
    def image_token(self) -> str:
        return str(self.processors.tokenizer.convert_ids_to_tokens(self.image_token_id))

    @abstractmethod
    def expand(self, pixels: Pixels) -> str:
        """The text that replaces the image token, for an image."""

    def write(self, pixels: Pixels) -> tuple[int, ...]:
        return self.fill(self.expand(pixels))

    def fill(self, text: str) -> tuple[int, ...]:
        """Tokens of the text of an image, with this text in the place of its token."""
        return self.tokens.markup(self.image_text.replace(self.image_token, text))


def rows_of(outputs: Any) -> torch.Tensor:
    """Encoder outputs of images as rows [n, features]; models return one tensor, or one per image or tile."""
    if isinstance(outputs, torch.Tensor):
        return outputs.flatten(0, -2)
    return torch.cat([rows_of(part) for part in outputs])


def stills(chunk: Chunk) -> list[Pixels]:
    """The images [H, W, 3] of a chunk."""
    return [chunk.pixels] if chunk.kind == "image" else list(chunk.pixels)


def _in_a_row(num_tokens: int) -> torch.Tensor:
    return torch.arange(num_tokens)[None]


def accepted(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a function has parameters for."""
    names = signature(function).parameters
    return {name: value for name, value in inputs.items() if name in names}
