"""Gemma 3n. Its vision tower, a MobileNet, needs timm; here a convolution is in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nProcessor,
    Gemma3nVisionConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    INITIALIZER_RANGE,
    build,
    shake_vectors,
    template,
    text_config,
    tokenizer,
    without_video,
)

TEMPLATE = template(
    opens={"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
    closes={"user": "<end_of_turn>\n", "assistant": "<end_of_turn>\n"},
    image="<image_soft_token>",
    start="<bos>",
)
TURNS = {"pad_token": "<pad>", "sot_token": "<start_of_turn>", "eot_token": "<end_of_turn>"}
# At the end, images and sounds have vocabularies of their own, which begin with the marks of their ends.
MEDIA = {
    "boi_token": "<start_of_image>",
    "boa_token": "<start_of_audio>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    "eoa_token": "<end_of_audio>",
    "audio_token": "<audio_soft_token>",
}
MARKERS = [*TURNS.values(), *MEDIA.values()]
SIDE, PATCH, HIDDEN = 60, 12, 32
TOKENS_PER_IMAGE = (SIDE // PATCH) ** 2
# Six layers, of which the last two share the KV of the two before them.
LAYERS = ["sliding_attention", "full_attention"] * 3
AUDIO = {
    "hidden_size": 16,
    "conf_num_attention_heads": 2,
    "conf_num_hidden_layers": 1,
    "sscp_conv_channel_size": (4, 4),
    "input_feat_size": 16,
}


class TowerConfig(Gemma3nVisionConfig):
    """Settings of the convolution."""

    model_type = "gemma3n_convolution"


class Tower(PreTrainedModel):
    """A convolution [N, 3, SIDE, SIDE] to [N, HIDDEN, h, w]."""

    config_class = TowerConfig
    _supports_sdpa = True

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, PATCH, PATCH)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=self.patches(pixel_values))


AutoModel.register(TowerConfig, Tower, exist_ok=True)


def gemma3n(dtype: torch.dtype) -> tuple[Any, Any]:
    """Gemma 3n."""
    words = tokenizer(MARKERS, bos="<bos>", eos="<eos>", **TURNS, **MEDIA)
    config = Gemma3nConfig(
        text_config=text_config(
            words,
            "gemma3n_text",
            num_hidden_layers=len(LAYERS),
            layer_types=LAYERS,
            num_kv_shared_layers=2,
            sliding_window=TOKENS_PER_IMAGE - 5,
            laurel_rank=8,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=words.eoi_token_id,
            activation_sparsity_pattern=[0.5, 0.5, 0.0, 0.0, 0.0, 0.0],
            pad_token_id=words.pad_token_id,
        ),
        vision_config=TowerConfig(
            hidden_size=HIDDEN, vocab_offset=words.eoi_token_id, vocab_size=2, initializer_range=INITIALIZER_RANGE
        ),
        audio_config=AUDIO | {"vocab_offset": words.eoa_token_id, "vocab_size": 2},
        vision_soft_tokens_per_image=TOKENS_PER_IMAGE,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
        **{f"{name}_id": words.convert_tokens_to_ids(mark) for name, mark in MEDIA.items()},
    )
    processor = without_video(Gemma3nProcessor)(
        feature_extractor=None,
        image_processor=SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=words,
        image_seq_length=TOKENS_PER_IMAGE,
        chat_template=TEMPLATE,
    )
    return shake_vectors(build(Gemma3nForConditionalGeneration, config, dtype)), processor
