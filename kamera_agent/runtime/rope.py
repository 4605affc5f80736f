"""RoPE: proof, at load, that keys rotated here are the model's own."""

from __future__ import annotations

import torch
from torch import nn

from kamera_agent.errors import ConventionError

# A wrong pair convention errs as much as the keys are long; rounding stays far below these bounds.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
TOLERANCE_HALF = 0.1


def check_frequencies(rotary: nn.Module) -> None:
    """Raise ConventionError when the rotary frequencies were rounded to the model's dtype."""
    for name, buffer in rotary.named_buffers():
        if buffer.dtype != torch.float32:
            raise ConventionError(
                f"The rotary frequencies ({name}) are {buffer.dtype}: the model was cast after loading, which "
                "spoils its positions. Load it with dtype=... instead of calling .to(dtype)."
            )


def check_rotation(rotated: torch.Tensor, reference: torch.Tensor) -> tuple[float, ...]:
    """Relative error per layer. Raises ConventionError, naming the layer, when rotated keys are not the model's own.

    rotated: [L, H, T, D] keys captured at p and rotated here to p + delta. reference: [L, H, T, D] the keys of the
    model at p + delta.
    """
    difference = (rotated.float() - reference.float()).flatten(1).norm(dim=1)
    errors = tuple((difference / reference.float().flatten(1).norm(dim=1)).tolist())
    bound = TOLERANCE.get(reference.dtype, TOLERANCE_HALF)
    for layer, value in enumerate(errors):
        if not value <= bound:
            raise ConventionError(
                f"Layer {layer} does not turn its keys the way this family does: relative error {value:.2g} where "
                f"{bound:g} is allowed. This checkpoint needs a family of its own."
            )
    return errors
