"""Initial weights of a model that is going to learn the tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from kamera_agent.pocket.tokenizer import SPACE
from kamera_agent.pocket.words import SHOWN, WORDS

# Scale of the initial output of layers, and length of the embeddings of SHOWN.
LAYER_SCALE, EMBEDDING_NORM = 0.2, 2.0
# Modules of a layer whose output is added to its input.
OUTPUTS = ("self_attn.o_proj", "linear_attn.out_proj", "mlp.down_proj")
# Norms of these outputs, in layers that have them, and their initial weights.
NORMS = ("post_feedforward_layernorm", "post_attention_layernorm", "post_per_layer_input_norm")
NORM_SCALE = 0.5


@torch.no_grad()
def set_embeddings(model: Any, tokenizer: Any) -> None:
    """Make the embeddings of SHOWN orthogonal, and those of a word with and without a space nearly equal."""
    embeddings = model.get_input_embeddings().weight
    noise = 0.1 * embeddings.std() * torch.randn_like(embeddings)
    axes = torch.linalg.qr(torch.randn(embeddings.shape[1], len(SHOWN)))[0]
    embeddings[word_ids(tokenizer, SHOWN)] = EMBEDDING_NORM * axes.mT
    bare, spaced = word_ids(tokenizer, WORDS), word_ids(tokenizer, [SPACE + word for word in WORDS])
    embeddings[spaced] = embeddings[bare] + noise[bare]


@torch.no_grad()
def scale_layers(text: Any) -> None:
    """Scale down the output of all layers. The codes of words would not reach the upper layers otherwise."""
    for layer in text.layers:
        modules = dict(layer.named_modules())
        scales = dict.fromkeys(NORMS, NORM_SCALE) if NORMS[0] in modules else dict.fromkeys(OUTPUTS, LAYER_SCALE)
        for name in scales.keys() & modules.keys():
            modules[name].weight.mul_(scales[name])


def word_ids(tokenizer: Any, words: Iterable[str]) -> torch.Tensor:
    """Token ids [words] of whole words."""
    return torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in words])
