"""Linear probes that read words from hidden states. They exist during training only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

from kamera_agent.pocket.words import SHOWN

# Classes besides the words: an empty slot, and the two results of a comparison.
FLAGS = ("", "same", "changed")
CLASSES = {name: index for index, name in enumerate((*FLAGS, *SHOWN))}


class Probes(nn.Module):
    """One linear map per slot, scored against the word embeddings of the decoder.

    A word therefore has the same code in a label, in a value and in a question. The decoder learns a few maps instead
    of every pair of words.
    """

    def __init__(self, hidden: int, num_slots: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.maps = nn.Linear(hidden, num_slots * hidden)
        self.flags = nn.Parameter(torch.randn(len(FLAGS), hidden))

    def forward(self, states: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Scores [N, slots, classes] for states [N, hidden] and codes [words, hidden] of SHOWN."""
        mapped = self.maps(states).unflatten(-1, (self.num_slots, -1))
        words = functional.normalize(codes, dim=-1) * codes.shape[1] ** 0.5
        scores: torch.Tensor = mapped @ torch.cat([self.flags, words]).mT
        return scores

    def loss(self, states: torch.Tensor, codes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss for labels [N, slots] of class numbers."""
        return slot_loss(self(states, codes), labels)


def slot_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of scores [N, slots, classes]; full slots and empty slots weigh the same."""
    full = labels > 0
    return functional.cross_entropy(scores[full], labels[full]) + functional.cross_entropy(scores[~full], labels[~full])


def label(cells: Iterable[Sequence[str]]) -> torch.Tensor:
    """Class numbers [N, slots] of cells or relations."""
    return torch.tensor([[CLASSES[word] for word in cell] for cell in cells])
