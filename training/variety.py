"""Cells in other looks. A few fonts and themes are not enough for a tower to read unseen ones."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

RECOLOURED, WARPED, DULLED = 0.6, 0.7, 0.3
# Shares of the cell's size, and pixels.
STRETCH, SLANT, SHIFT = 0.12, 0.15, 2.0
NOISE = 6.0


def vary(cells: torch.Tensor, colours_matter: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Recolour, stretch, slant, move, blur and grain cells [N, 3, H, W] of 0 to 255, each at random.

    colours_matter [N]: cells that are not recoloured, because their colours are their content.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
    return _dull(_warp(_recolour(cells, colours_matter, generator), generator), generator)


def _recolour(cells: torch.Tensor, colours_matter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count = len(cells)
    chosen = _chance(RECOLOURED, count, generator) & ~colours_matter
    channels = torch.rand(count, 3, generator=generator).argsort(1)
    mixed = cells.gather(1, channels[:, :, None, None].expand_as(cells))
    mixed = torch.where(_chance(0.5, count, generator)[:, None, None, None], 255 - mixed, mixed)
    scale = 0.8 + 0.35 * torch.rand(count, 1, 1, 1, generator=generator)
    offset = 50 * torch.rand(count, 3, 1, 1, generator=generator) - 25
    return torch.where(chosen[:, None, None, None], (mixed * scale + offset).clamp(0, 255), cells)


def _warp(cells: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count = len(cells)
    drawn = (2 * torch.rand(count, 5, generator=generator) - 1) * _chance(WARPED, count, generator)[:, None]
    across, up, slant, right, down = drawn.unbind(1)
    half = cells.shape[-1] / 2
    rows = (
        torch.stack([1 + STRETCH * across, SLANT * slant, SHIFT / half * right], dim=1),
        torch.stack([torch.zeros(count), 1 + STRETCH * up, SHIFT / half * down], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(cells.shape), align_corners=False)
    return functional.grid_sample(cells, grid, padding_mode="border", align_corners=False)


def _dull(cells: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    chosen = _chance(DULLED, len(cells), generator)[:, None, None, None]
    blurred = functional.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    grain = NOISE * torch.randn(cells.shape, generator=generator)
    return torch.where(chosen, ((cells + blurred) / 2 + grain).clamp(0, 255), cells)


def _chance(share: float, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) < share
