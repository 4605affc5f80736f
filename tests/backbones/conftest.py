"""One model at a time: a row of the matrix in one dtype, and Kameras over it."""

from collections.abc import Iterator
from typing import Any

import pytest
from models import MakeKamera
from rows import DTYPES, Row, rows

from kamera_agent import Kamera


@pytest.fixture(scope="module", params=rows(*DTYPES))
def row(request: pytest.FixtureRequest) -> Row:
    backbone, dtype = request.param
    return Row(backbone, *backbone.build(DTYPES[dtype]), DTYPES[dtype])


@pytest.fixture
def make(row: Row) -> Iterator[MakeKamera]:
    """Builds Kameras over the row's model; closes them, and none may have failed to remember."""
    made: list[Kamera] = []

    def build(**options: Any) -> Kamera:
        made.append(Kamera(row.model, row.processor, **options))
        return made[-1]

    yield build
    for kamera in made:
        kamera.close()
        assert kamera._library.num_failed == 0
