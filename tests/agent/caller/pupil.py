"""The decoder in training: its next tokens, and the gazes of two of its heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half

from training.frame import head_rows

from .page import NOWHERE, Page

SOURCE_WEIGHT = 0.5


class Batch(NamedTuple):
    """Pages of about the same length, all [pages, tokens]. is_reply and the indices are shifted to the token before."""

    token_ids: torch.Tensor
    is_reply: torch.Tensor
    sources: torch.Tensor
    subjects: torch.Tensor

    @classmethod
    def of(cls, pages: Sequence[Page]) -> Batch:
        shape = len(pages), max(len(page.token_ids) for page in pages)
        batch = cls(
            torch.zeros(shape, dtype=torch.long),
            torch.zeros(shape, dtype=torch.bool),
            torch.full(shape, NOWHERE),
            torch.full(shape, NOWHERE),
        )
        for row, page in enumerate(pages):
            size = len(page.token_ids)
            batch.token_ids[row, :size] = torch.tensor(page.token_ids)
            for target, values in zip(batch[1:], page[1:], strict=True):
                target[row, : size - 1] = torch.tensor(values[1:])
        return batch


class Eye:
    """The gaze of the first head of a group of an attention layer."""

    def __init__(self, attention: Any, group: int) -> None:
        self._attention = attention
        self._rows = [head_rows(attention, head) for head in (group * attention.num_key_value_groups, group)]
        attention.register_forward_pre_hook(self._record, with_kwargs=True)

    def loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of its attention in the last pass. targets [pages, tokens]: indices, or NOWHERE."""
        pages, places = (targets != NOWHERE).nonzero(as_tuple=True)
        cos, sin = (turn[0] if turn.dim() == 4 else turn for turn in self._turns)
        projections = self._attention.q_proj, self._attention.k_proj
        query, key = (project(self._states)[..., rows] for project, rows in zip(projections, self._rows, strict=True))
        query, key = (part * cos + rotate_half(part) * sin for part in (query, key))
        scores = torch.einsum("nd,ntd->nt", query[pages, places], key[pages]) * self._attention.scaling
        ahead = torch.arange(key.shape[1]) > places[:, None]
        scores = scores.masked_fill(ahead, float("-inf"))
        return F.cross_entropy(scores, targets[pages, places], reduction="sum") / max(len(pages), 1)

    def _record(self, _: nn.Module, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        self._states = inputs["hidden_states"]
        self._turns = inputs["position_embeddings"]


class Pupil:
    """A model whose decoder is trained on pages."""

    def __init__(self, model: Any) -> None:
        self.text: nn.Module = model.model.language_model
        self._head = model.lm_head
        self._subject = Eye(self.text.layers[-2].self_attn, group=1)
        self._source = Eye(self.text.layers[-1].self_attn, group=0)

    def loss(self, batch: Batch, subject_weight: float) -> torch.Tensor:
        """Cross-entropy of the replies, plus that of the gazes of two heads."""
        replies = F.cross_entropy(*self.answers(batch))
        looks = SOURCE_WEIGHT * self._source.loss(batch.sources) + subject_weight * self._subject.loss(batch.subjects)
        return replies + looks

    def answers(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores [N, vocab] of the tokens of replies, and the right token ids [N]."""
        positions = torch.arange(batch.token_ids.shape[1]).expand(3, len(batch.token_ids), -1)
        states = self.text(
            inputs_embeds=self.text.embed_tokens(batch.token_ids),
            position_ids=positions,
            # None is a causal mask. The padding of a page comes after its tokens, so they do not see it.
            attention_mask={"full_attention": None},
            use_cache=False,
        ).last_hidden_state
        return self._head(states[batch.is_reply]), batch.token_ids.roll(-1, 1)[batch.is_reply]
