"""Which tile of an image a token belongs to: where a tile changes, its token gets other features than before."""

import numpy as np
import pytest
import torch
from models import screenshot
from rows import Row, named

from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.resemblance import Resemblance

ROWS, COLUMNS = 4, 6
TILED = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen2_5_omni_thinker",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_omni_moe_thinker",
    "glm4v",
    "glm46v",
    "glm_ocr",
    "ernie4_5_vl_moe",
)


@pytest.mark.parametrize("row", named(*TILED), indirect=True)
@torch.no_grad()
def test_a_tile_is_that_of_its_token(row: Row) -> None:
    family = family_for(row.model, row.processor)
    processor = family.processors.image_processor
    side = processor.patch_size * processor.merge_size
    image = screenshot(0, ROWS * side, COLUMNS * side)
    chunk = family.image_chunk(image, "")
    assert chunk.grid == (1, ROWS * processor.merge_size, COLUMNS * processor.merge_size)
    for tile in ((0, 1), (2, 0), (3, 5)):
        other = family.image_chunk(_changed(image, side, *tile), "")
        number = tile[0] * COLUMNS + tile[1]
        assert Resemblance(family).changed(other, chunk) == [0, 1 + number, len(chunk.token_ids) - 1]
        apart = (family.encode(other) - family.encode(chunk)).norm(dim=1)
        assert int(apart.argmax()) == number


@pytest.mark.parametrize("row", named("paddleocr_vl", "llava", "kimi_k25"), indirect=True)
def test_others_have_no_tiles(row: Row) -> None:
    family = family_for(row.model, row.processor)
    one, other = (family.image_chunk(screenshot(seed), "") for seed in range(2))
    assert Resemblance(family).changed(one, other) is None


def _changed(image: np.ndarray, side: int, row: int, column: int) -> np.ndarray:
    """The image with other pixels in the middle of one tile."""
    other = image.copy()
    at = (slice(place * side + side // 4, (place + 1) * side - side // 4) for place in (row, column))
    other[tuple(at)] ^= 255
    return other
