"""Metrics, read back from the text that Prometheus scrapes."""

import gc
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kamera_agent import Kamera, SettingError
from kamera_agent.agent import ChatKamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.window.reply import Reply


def scrape(registry: CollectorRegistry) -> dict[tuple[str, frozenset[Any]], float]:
    """Value by name and labels."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(registry: CollectorRegistry, name: str, model_name: str = "m", **labels: str) -> float | None:
    return scrape(registry).get((name, frozenset({"model_name": model_name, **labels}.items())))


def test_the_figures_of_two_replies(reply: Reply) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.observe(reply, "m")
    metrics.observe(replace(reply, finish_reason="stop"), "m")
    expected = {
        ("kamera_prompt_tokens_total", "kept"): 60,
        ("kamera_prompt_tokens_total", "moved"): 200,
        ("kamera_prompt_tokens_total", "recalled"): 100,
        ("kamera_prompt_tokens_total", "computed"): 14,
        ("kamera_prompt_tokens_total", "blind"): None,
    }
    for (name, origin), tokens in expected.items():
        assert value(registry, name, origin=origin) == tokens
    assert value(registry, "kamera_generation_tokens_total") == 8
    assert value(registry, "kamera_encoder_calls_total") == 2
    assert value(registry, "kamera_encoder_calls_avoided_total") == 6
    assert value(registry, "kamera_request_success_total", finished_reason="stop") == 1
    assert value(registry, "kamera_request_success_total", finished_reason="length") == 1
    sums = {
        "time_to_first_token": 0.052,
        "request_plan_time": 0.004,
        "request_rebuild_time": 0.006,
        "request_prefill_time": 0.04,
        "request_decode_time": 1.2,
        "request_time_per_output_token": 0.3,
    }
    for name, seconds in sums.items():
        assert value(registry, f"kamera_{name}_seconds_sum") == pytest.approx(seconds)
        assert value(registry, f"kamera_{name}_seconds_count") == 2
    assert value(registry, "kamera_time_to_first_token_seconds_bucket", le="0.025") == 0
    assert value(registry, "kamera_time_to_first_token_seconds_bucket", le="0.05") == 2


def test_an_empty_reply_has_no_time_per_token(reply: Reply) -> None:
    registry = CollectorRegistry()
    Metrics(registry).observe(replace(reply, usage=replace(reply.usage, tokens_generated=0)), "m")
    assert value(registry, "kamera_request_time_per_output_token_seconds_count") is None
    assert value(registry, "kamera_time_to_first_token_seconds_count") == 1


def test_models_are_told_apart(reply: Reply) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for model_name in ("m", "n", "n"):
        metrics.observe(reply, model_name)
    assert value(registry, "kamera_generation_tokens_total") == 4
    assert value(registry, "kamera_generation_tokens_total", "n") == 8


def test_a_scrape_tells_the_state_of_living_kameras(kamera: Kamera) -> None:
    """Against stats(), taken at the same moment; two Kameras of one name are added up, and one that closed is left."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch(kamera, "m")
    metrics.watch(kamera, "m")
    window = kamera.window()
    window.add_text("Look.")
    window.generate(max_new_tokens=2)
    kamera.flush()
    stats = kamera.stats()
    assert value(registry, "kamera_windows") == stats.num_windows > 0
    assert value(registry, "kamera_pool_bytes") == stats.pool_bytes > 0
    assert value(registry, "kamera_store_capacity_bytes") == stats.store.cap_bytes > 0

    model, processor = kamera.family.model, build_processor()
    other = Kamera(model, processor, memory_bytes=12345)
    metrics.watch(other, "m")
    assert value(registry, "kamera_store_capacity_bytes") == stats.store.cap_bytes + 12345
    other.close()
    assert value(registry, "kamera_store_capacity_bytes") == stats.store.cap_bytes


def test_a_kamera_that_is_gone_is_not_held() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    with Kamera(build_model(), build_processor()) as kamera:
        metrics.watch(kamera, "m")
        assert value(registry, "kamera_windows") == 0
    del kamera
    gc.collect()
    assert value(registry, "kamera_windows") is None


def test_a_chat_model_counts_its_answers(kamera: Kamera) -> None:
    """What Prometheus reads is what usage_metadata says."""
    registry = CollectorRegistry()
    model = ChatKamera(kamera=kamera, max_tokens=3, metrics=Metrics(registry))
    name = model.model_name
    messages = [model.invoke("Look.", conversation="a"), [*model.stream("Look.", conversation="a")][-1]]
    usages = [message.usage_metadata for message in messages]
    computed = sum(usage["input_token_details"]["cache_creation"] for usage in usages)
    told = value(registry, "kamera_prompt_tokens_total", name, origin="computed")
    assert told == computed
    assert value(registry, "kamera_time_to_first_token_seconds_count", name) == 2
    assert value(registry, "kamera_windows", name) == kamera.stats().num_windows


def test_one_registry_takes_one(reply: Reply) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(SettingError, match="share the first"):
        Metrics(registry)


def test_without_the_package_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from kamera_agent import SettingError\n"
        "from kamera_agent.telemetry.metrics import Metrics\n"
        "try:\n    Metrics()\n"
        "except SettingError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kamera-agent[metrics]" in done.stdout
