"""What cannot be served is refused, with the reason."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import MODEL, Runner
from vllm.config import KVTransferConfig

from kamera_agent.errors import ConventionError, SettingError, UnsupportedModelError
from kamera_agent.pages.blueprint import Blueprint
from kamera_agent.pages.window import engine_settings
from kamera_vllm.__main__ import main
from kamera_vllm.connector import _check, _check_caches
from kamera_vllm.transfer import transfer_config

GROUPS = SimpleNamespace(kv_cache_groups=[object()])


def config(world_size: int = 1, policy: str = "recompute") -> Any:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(world_size=world_size),
        kv_transfer_config=SimpleNamespace(kv_load_failure_policy=policy),
    )


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return Blueprint.of(MODEL, engine_settings({}, "A test"))


def test_a_model_over_several_devices() -> None:
    with pytest.raises(UnsupportedModelError, match="over 2 devices"):
        _check(config(world_size=2), GROUPS)


def test_layers_of_several_kinds() -> None:
    with pytest.raises(UnsupportedModelError, match="2 kinds"):
        _check(config(), SimpleNamespace(kv_cache_groups=[object(), object()]))


def test_a_policy_under_which_a_lost_record_fails_a_request() -> None:
    with pytest.raises(SettingError, match="recompute"):
        _check(config(policy="fail"), GROUPS)


def test_a_cache_in_another_dtype(blueprint: Blueprint) -> None:
    rotation = blueprint.rotation
    shape = 4, rotation.heads.num, 32, 2 * rotation.heads.dim
    caches = [torch.empty(shape, dtype=torch.bfloat16) for _ in range(rotation.num_layers)]
    with pytest.raises(UnsupportedModelError, match=r"Layer 0 .*bfloat16"):
        _check_caches(rotation, 32, caches)
    with pytest.raises(UnsupportedModelError, match="caches 1 layers"):
        _check_caches(rotation, 32, [torch.empty(shape, dtype=rotation.kv_dtype)])


def test_the_transfer_that_a_server_is_given_is_that_of_a_front_end(
    blueprint: Blueprint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["kamera_vllm", MODEL, str(tmp_path), "redis://host"])
    main()
    printed = KVTransferConfig(**json.loads(capsys.readouterr().out))
    expected = transfer_config(blueprint, [tmp_path, "redis://host"], {})
    served, driven = printed.kv_connector_extra_config, json.loads(json.dumps(expected.kv_connector_extra_config))
    assert (served.pop("takes_orders"), driven.pop("takes_orders")) == (False, True)
    assert served == driven
    assert (printed.kv_connector, printed.kv_load_failure_policy) == ("KameraConnector", "recompute")


def test_a_secret_that_is_a_function(blueprint: Blueprint, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="encryption_key"):
        transfer_config(blueprint, tmp_path, {"encryption_key": lambda: bytes(32)})


@pytest.mark.parametrize("name", ["sample", "picture"])
def test_pages_that_differ_from_those_of_hugging_face(runner: Runner, name: str) -> None:
    kamera = runner.kamera
    right = kamera.blueprint
    known = getattr(right, name)
    wrong = [layer._replace(values=layer.values.flip(0)) for layer in known.kv]
    kamera.blueprint = right._replace(**{name: known._replace(kv=tuple(wrong))})
    try:
        with pytest.raises(ConventionError, match="the values of layer 0"):
            runner.run(kamera._self_test())
    finally:
        kamera.blueprint = right
