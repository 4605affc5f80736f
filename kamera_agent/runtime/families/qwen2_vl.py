"""Qwen2-VL and Qwen2.5-VL: GQA, M-RoPE over three axes, ChatML turns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kamera_agent.chunk import Chunk, ChunkKind
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.base import Family, Processors, Run
from kamera_agent.runtime.families.qwen_patches import Grid, QwenPatchifier
from kamera_agent.runtime.kv_pool import KVShape
from kamera_agent.runtime.slot_cache import SlotCache, cache_argument
from kamera_agent.vision.fingerprint import chunk_key, fingerprint_frames, fingerprint_image
from kamera_agent.vision.frames import DEFAULT_FPS, Frames
from kamera_agent.vision.image import Pixels

IMAGE, VIDEO = 1, 2


class Qwen2VL(Family):
    """The Qwen2-VL line (arXiv 2409.12191, 2502.13923)."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
    pil_processor = Qwen2VLImageProcessorPil
    num_axes = 3
    default_system = "You are a helpful assistant."

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        self._patchifier = QwenPatchifier(processors)
        if not hasattr(model.model, "language_model"):
            raise UnsupportedModelError(
                f"{type(model).__name__} is a wrapper; pass the Qwen2-VL model itself, with adapters loaded by "
                "model.load_adapter() or merged."
            )
        kinds = set(self._text.config.layer_types)
        if kinds != {"full_attention"}:
            raise UnsupportedModelError(
                f"Layers of kind {sorted(kinds - {'full_attention'})} cannot be rebuilt from chunks yet; "
                "load the model with use_sliding_window=False."
            )

    @cached_property
    def _cache_argument(self) -> str:
        return cache_argument(self._text)

    @property
    def _text(self) -> Any:
        return self.model.model.language_model

    @cached_property
    def kv_shape(self) -> KVShape:
        config = self._text.config
        head_dim = config.hidden_size // config.num_attention_heads
        return KVShape(
            config.num_hidden_layers,
            config.num_key_value_heads,
            head_dim,
            self.model.dtype,
            self.model.device,
        )

    @property
    def max_positions(self) -> int:
        return int(self._text.config.max_position_embeddings)

    @property
    def rotary(self) -> nn.Module:
        module: nn.Module = self._text.rotary_emb
        return module

    @property
    def key_modules(self) -> Sequence[nn.Module]:
        return [layer.self_attn.k_proj for layer in self._text.layers]

    @cached_property
    def anchor_ids(self) -> tuple[int, ...]:
        return self.open_turn("system")

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return frozenset({token for token in listed if token is not None} | {self.close_turn()[0]})

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.model.config.image_token_id, self.model.config.video_token_id})

    def open_turn(self, role: str) -> tuple[int, ...]:
        return self.markup(f"<|im_start|>{role}\n")

    def close_turn(self) -> tuple[int, ...]:
        return self.markup("<|im_end|>\n")

    def image_chunk(self, pixels: Pixels, namespace: str) -> Chunk:
        grid = self._patchifier.image_grid(*pixels.shape[:2])
        return self._chunk("image", pixels, (), grid, None, fingerprint_image(pixels), namespace)

    def frames_chunk(self, frames: Frames, namespace: str) -> Chunk:
        num_frames, per_group = len(frames.timestamps), self._patchifier.frames_per_group
        grid = self._patchifier.frames_grid(*frames.pixels.shape[:3])
        seconds = frames.timestamps[-1] - frames.timestamps[0]
        seconds_per_grid = per_group * (seconds / (num_frames - 1) if num_frames > 1 else 1 / DEFAULT_FPS)
        digest = fingerprint_frames(frames.pixels, frames.timestamps)
        return self._chunk("frames", frames.pixels, frames.timestamps, grid, seconds_per_grid, digest, namespace)

    def _chunk(
        self,
        kind: ChunkKind,
        pixels: Pixels,
        timestamps: Sequence[float],
        grid: Grid,
        seconds_per_grid: float | None,
        pixels_digest: str,
        namespace: str,
    ) -> Chunk:
        config = self.model.config
        pad = config.image_token_id if kind == "image" else config.video_token_id
        num_pads = math.prod(grid) // self.processors.image_processor.merge_size**2
        token_ids = (config.vision_start_token_id, *[pad] * num_pads, config.vision_end_token_id)
        key = chunk_key(
            kind=kind,
            pixels_digest=pixels_digest,
            shape=pixels.shape,
            timestamps=timestamps,
            model_identity=self._identity,
            processor_identity=self._processor_identity,
            namespace=namespace,
        )
        offsets = self._offsets(token_ids, kind, grid, seconds_per_grid)
        # The closing marker is text: it takes the last position, and what follows starts right behind it.
        extent = int(offsets[0, -1]) + 1
        return Chunk(key, kind, token_ids, offsets, extent, grid, seconds_per_grid, pixels)

    def _offsets(
        self, token_ids: Sequence[int], kind: ChunkKind, grid: Grid, seconds_per_grid: float | None
    ) -> torch.Tensor:
        """Positions [3, T] of a chunk that starts at 0, by the model's own rule."""
        inputs = torch.tensor([token_ids])
        types = torch.tensor([self._token_types(token_ids)])
        which = "image" if kind == "image" else "video"
        extras = {f"{which}_grid_thw": torch.tensor([grid])}
        if seconds_per_grid is not None:
            extras["second_per_grid_ts"] = torch.tensor([seconds_per_grid])
        positions, _ = self.model.model.get_rope_index(inputs, mm_token_type_ids=types, **extras)
        offsets: torch.Tensor = positions[:, 0]
        return offsets

    def _token_types(self, token_ids: Sequence[int]) -> list[int]:
        types = {self.model.config.image_token_id: IMAGE, self.model.config.video_token_id: VIDEO}
        return [types.get(token, 0) for token in token_ids]

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

    def encode(self, chunk: Chunk) -> torch.Tensor:
        pixel_values = self._patchifier.patches(chunk).to(self.model.device)
        grid = torch.tensor([chunk.grid], device=self.model.device)
        encoder = self.model.get_image_features if chunk.kind == "image" else self.model.get_video_features
        features: torch.Tensor = encoder(pixel_values, grid, return_dict=True).pooler_output[0]
        return features.to(self.kv_shape.dtype)

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        token_ids = torch.tensor(run.token_ids, device=self.model.device)
        embeds: torch.Tensor = self._text.embed_tokens(token_ids)
        if features is not None:
            embeds[1:-1] = features
        return embeds

    def rope_tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = self.kv_shape
        like = torch.empty(0, dtype=shape.dtype, device=shape.device)
        cos, sin = self.rotary(like, positions[:, None].to(shape.device))
        return cos[0], sin[0]

    def hidden_states(
        self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: SlotCache
    ) -> torch.Tensor:
        hidden: torch.Tensor = self._text(
            inputs_embeds=embeds[None],
            position_ids=positions[:, None],
            # By layer type, so that a missing mask stays missing.
            attention_mask={"full_attention": mask},
            use_cache=True,
            **{self._cache_argument: cache},
        ).last_hidden_state
        return hidden[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits.float()

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        token_ids = [token for run in runs for token in run.token_ids]
        device = self.model.device
        inputs: dict[str, torch.Tensor] = {}
        for kind, values, grids in (
            ("image", "pixel_values", "image"),
            ("frames", "pixel_values_videos", "video"),
        ):
            chunks = [run for run in runs if isinstance(run, Chunk) and run.kind == kind]
            if chunks:
                inputs[values] = torch.cat([self._patchifier.patches(chunk).to(self.model.device) for chunk in chunks])
                inputs[f"{grids}_grid_thw"] = torch.tensor([chunk.grid for chunk in chunks], device=device)
        seconds = [run.seconds_per_grid for run in runs if isinstance(run, Chunk) and run.seconds_per_grid]
        if seconds:
            inputs["second_per_grid_ts"] = torch.tensor(seconds, device=device)
        output = self.model(
            input_ids=torch.tensor([token_ids], device=device),
            mm_token_type_ids=torch.tensor([self._token_types(token_ids)], device=device),
            use_cache=False,
            logits_to_keep=1,
            **inputs,
        )
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits
