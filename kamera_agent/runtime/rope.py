"""The RoPE self-test: proof, at load, that keys rotated here are the model's own."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from kamera_agent.chunk import TextRun
from kamera_agent.errors import ConventionError
from kamera_agent.runtime.bank import Row
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.quantisation import scheme_of
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool

NUM_TOKENS = 8
SHIFT = 17
# A wrong pair convention errs by as much as the keys are long; rounding stays far below these bounds.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_HALF = 0.1


class Forward(Protocol):
    """A forward pass over a pool, as Engine.forward_at."""

    def __call__(self, pool: KVPool, slots: Slots, embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Compute tokens that have their places in the pool's order."""


@torch.no_grad()
def self_test(family: Family, forward: Forward) -> dict[int, float]:
    """Relative error between keys turned here and the model's own at the same positions, by layer that keeps keys.

    1. Run dummy tokens at p and at p + SHIFT.
    2. Turn the keys captured at p to p + SHIFT, and compare them with those that the model made there.

    Raises ConventionError, naming the layer, when they differ by more than rounding explains.
    """
    _check_frequencies(family.decoder.rotary)
    vocab = family.model.get_input_embeddings().num_embeddings
    embeds = family.embed(TextRun(tuple(range(vocab - NUM_TOKENS, vocab))), None)
    # Each axis has a step of its own, so that a wrong assignment of axes to frequencies cannot hide.
    steps = torch.arange(1, family.num_axes + 1)[:, None]
    positions = torch.arange(NUM_TOKENS) * steps
    pools = []
    for shift in (0, SHIFT):
        pool = family.decoder.new_pool()
        slots = pool.allocate(NUM_TOKENS)
        pool.place(slots, 0)
        forward(pool, slots, embeds, positions + shift)
        pools.append(pool)
    turned, shifted = pools
    turned.relocate(slots, family.decoder.rope_tables(positions + SHIFT))
    turned.settle(slots)
    bound = bound_of(family)
    return {layer: _check_rotation(layer, row, shifted.rows[layer], bound) for layer, row in turned.rows.items()}


def bound_of(family: Family) -> float:
    """The largest relative error that rounding explains."""
    # Quantised layers may round what they take, to 8 bits.
    return TOLERANCE_HALF if scheme_of(family.model) else TOLERANCE.get(family.decoder.dtype, TOLERANCE_HALF)


def _check_frequencies(rotary: nn.Module) -> None:
    """Raise ConventionError when the rotary frequencies were rounded to the model's dtype."""
    for name, buffer in rotary.named_buffers():
        if buffer.dtype != torch.float32:
            raise ConventionError(
                f"The rotary frequencies ({name}) are {buffer.dtype}: the model was cast after loading, which "
                "spoils its positions. Load it with dtype=... instead of calling .to(dtype)."
            )


def _check_rotation(layer: int, row: Row, reference: Row, bound: float) -> float:
    """Relative error of the turned keys of a layer against the model's own."""
    turned, expected = (keys[:, :NUM_TOKENS].float() for keys in (row.keys, reference.keys))
    error = float((turned - expected).norm() / expected.norm())
    # Written so that NaN fails, too.
    if not error <= bound:
        raise ConventionError(
            f"Layer {layer} does not turn its keys the way this family does: the relative error is {error:.2g}, "
            f"and {bound:g} is allowed. This checkpoint needs a family of its own."
        )
    return error
