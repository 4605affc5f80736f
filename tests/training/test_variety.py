"""Cells in other looks: what changes and what does not."""

import numpy as np
import torch

from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.screen import CELL
from kamera_agent.pocket.world import World
from training.gallery import cut
from training.variety import vary


def cells() -> torch.Tensor:
    return cut(draw(World(np.random.default_rng(1)).window("moves", 1)[0]))


def test_cells_are_cut_row_by_row() -> None:
    frames = draw(World(np.random.default_rng(1)).window("links", 1)[0])
    columns = frames.shape[2] // CELL
    for number, cell in enumerate(cut(frames)):
        row, column = divmod(number, columns)
        expected = frames[0, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        np.testing.assert_array_equal(cell.permute(1, 2, 0).numpy(), expected)


def test_the_same_generator_gives_the_same_looks() -> None:
    shown, stay = cells(), torch.ones(len(cells()), dtype=torch.bool)
    first, second = (vary(shown, stay, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, vary(shown, stay, np.random.default_rng(8)))
    assert first.shape == shown.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255


def test_colours_that_mean_something_stay() -> None:
    """The mean colour of cells whose colours matter hardly changes (a warp, some grain); that of the others does."""
    plain = torch.stack([torch.full((3, CELL, CELL), 128.0), torch.zeros(3, CELL, CELL)])
    plain[1, 0] = 200.0
    many = plain.repeat(200, 1, 1, 1)
    kept = vary(many, torch.ones(400, dtype=torch.bool), np.random.default_rng(3))
    assert float((kept.mean((2, 3)) - many.mean((2, 3))).abs().max()) < 3
    free = vary(many, torch.zeros(400, dtype=torch.bool), np.random.default_rng(3))
    assert float((free.mean((2, 3)) - many.mean((2, 3))).abs().amax(1).gt(20).float().mean()) > 0.4
