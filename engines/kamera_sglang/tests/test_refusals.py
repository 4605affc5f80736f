"""What cannot be done is refused with the reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import made
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, MLATokenToKVPool

from kamera_agent.errors import SettingError, UnsupportedModelError
from kamera_agent.pocket.weights import WEIGHTS
from kamera_sglang import SglangKamera, linker_options
from kamera_sglang.linker import KameraLinker
from kamera_sglang.pool import EnginePool


def test_a_pool_of_latents_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="MLATokenToKVPool"):
        EnginePool(made(MLATokenToKVPool))


def test_a_quantised_pool_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="kv_cache_dtype='auto'"):
        EnginePool(made(MHATokenToKVPool, dtype=torch.float8_e4m3fn, store_dtype=torch.uint8))


@pytest.mark.parametrize("sizes", [{"tp_size": 2, "pp_size": 1}, {"tp_size": 1, "pp_size": 2}])
def test_an_engine_of_several_ranks_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="2 ranks"):
        KameraLinker(SimpleNamespace(**sizes), None, components=(), extra_config={}, forward_stream=None)


def test_an_engine_without_the_linker_is_refused() -> None:
    engine = SimpleNamespace(server_args=SimpleNamespace(unified_cache_external_linker_config=None))
    with pytest.raises(SettingError, match="linker_options"):
        SglangKamera(engine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stale": "refresh"}, "use 'keep' or 'compute'"),
        ({"base": "canonical"}, "use 'first'"),
        ({"near": "tiles"}, "use 'off'"),
        ({"encryption_key": "env:KEY"}, "linker_options"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SglangKamera(None, **options)


def test_a_model_with_other_patches_is_refused_before_the_engine_sees_one(tmp_path: Path) -> None:
    config = linker_options(tmp_path)["unified_cache_external_linker_config"]
    facts = {"model_path": str(WEIGHTS), "revision": None, "dtype": "auto"}
    engine = SimpleNamespace(server_args=SimpleNamespace(unified_cache_external_linker_config=config, **facts))
    with pytest.raises(UnsupportedModelError, match="28 pixels"):
        SglangKamera(engine)
