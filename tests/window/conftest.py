from collections.abc import Iterator
from typing import Any

import pytest
from models import TINY, MakeKamera

from kamera_agent import Kamera
from kamera_agent.pocket.model import PocketProcessor, build_model, build_processor


@pytest.fixture(scope="session")
def processor() -> PocketProcessor:
    return build_processor()


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    return {name: build_model(TINY, backbone=name) for name in ("qwen2_vl", "qwen2_5_vl")}


@pytest.fixture(params=["qwen2_vl", "qwen2_5_vl"])
def model(request: pytest.FixtureRequest, models: dict[str, Any]) -> Any:
    return models[request.param]


@pytest.fixture
def make(models: dict[str, Any], processor: PocketProcessor) -> Iterator[MakeKamera]:
    """Builds Kameras over Qwen2.5-VL or the model given; closes them, and none may have failed to remember."""
    made: list[Kamera] = []

    def build(model: Any = models["qwen2_5_vl"], **options: Any) -> Kamera:
        made.append(Kamera(model, processor, **options))
        return made[-1]

    yield build
    for kamera in reversed(made):  # the owner of a shared store last
        kamera.close()
        assert kamera._library.num_failed == 0
