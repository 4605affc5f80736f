"""Metrics, read back from the text that Prometheus scrapes."""

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kamera_agent import Kamera, SettingError
from kamera_agent.agent import ChatKamera
from kamera_agent.chunk import Key, Record
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.store.memory import MemoryStore
from kamera_agent.telemetry.drift import Drift
from kamera_agent.telemetry.metrics import Metrics
from kamera_agent.window.plan import Plan
from kamera_agent.window.reply import Reply


def scrape(registry: CollectorRegistry) -> dict[tuple[str, frozenset[Any]], float]:
    """Value by name and labels."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(registry: CollectorRegistry, name: str, model_name: str = "m", **labels: str) -> float | None:
    return scrape(registry).get((name, frozenset({"model_name": model_name, **labels}.items())))


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model()


def miss(kamera: Kamera, times: int) -> None:
    for _ in range(times):
        kamera.store.get_many([Key.of(name="absent")])


def record(num_bytes: int) -> Record:
    key = Key.of(num_bytes=num_bytes)
    return Record.of(key, key.digest, "base", [[torch.zeros(num_bytes, dtype=torch.uint8)]])


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
    assert value(registry, "kamera_compared_answers_total", outcome="exact") == 2
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


def test_the_figures_of_comparisons(reply: Reply) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    inexact = Plan((replace(reply.plan.rows[0], exact=False), *reply.plan.rows[1:]))
    metrics.observe(replace(reply, plan=inexact), "m")
    metrics.observe(reply, "m", exact_only=True)
    metrics.observe_drift(Drift(0.02, agrees=True), "m", 1.5)
    metrics.observe_drift(Drift(4.0, agrees=False), "m")
    metrics.observe_drift(None, "m", 0.25)
    outcomes = {"exact": 1, "agrees": 1, "differs": 1, "unfinished": 1}
    for outcome, count in outcomes.items():
        assert value(registry, "kamera_compared_answers_total", outcome=outcome) == count
    assert value(registry, "kamera_drift_kl_nats_sum") == pytest.approx(4.02)
    assert value(registry, "kamera_drift_kl_nats_bucket", le="0.03") == 1
    assert value(registry, "kamera_comparing_seconds_total") == 1.75
    assert value(registry, "kamera_fallback_answers_total") == 1


def test_models_are_told_apart(reply: Reply) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for model_name in ("m", "n", "n"):
        metrics.observe(reply, model_name)
    assert value(registry, "kamera_generation_tokens_total") == 4
    assert value(registry, "kamera_generation_tokens_total", "n") == 8


def test_a_scrape_tells_the_state_of_living_kameras(kamera: Kamera) -> None:
    """Against stats(), taken at the same time. Two Kameras of one name are added up, without one that is closed."""
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


class TestCounters:
    """Counters never shrink, and count everything once, whether Kameras live, close or share a store."""

    def misses(self, registry: CollectorRegistry, model_name: str = "m") -> float | None:
        return value(registry, "kamera_store_misses_total", model_name)

    def test_a_kamera_that_closes_or_is_collected_keeps_its_counts(self, model: Any) -> None:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        first, second = (Kamera(model, build_processor()) for _ in range(2))
        for kamera in (first, second):
            metrics.watch(kamera, "m")
        miss(first, 3)
        miss(second, 4)
        assert self.misses(registry) == 7
        second.close()
        assert self.misses(registry) == 7
        del kamera, second
        gc.collect()
        miss(first, 1)
        assert self.misses(registry) == 8
        first.close()
        del first
        gc.collect()
        assert self.misses(registry) == 8
        with Kamera(model, build_processor()) as third:
            metrics.watch(third, "m")
            miss(third, 2)
            assert self.misses(registry) == 10
        unclosed = Kamera(model, build_processor())
        metrics.watch(unclosed, "m")
        miss(unclosed, 1)
        assert self.misses(registry) == 11
        del unclosed
        gc.collect()
        assert self.misses(registry) == 11

    def test_a_kamera_that_closes_between_two_scrapes_is_counted(self, model: Any, tmp_path: Path) -> None:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        with Kamera(model, build_processor(), tmp_path) as kamera:
            metrics.watch(kamera, "m")
            miss(kamera, 5)
            kamera.store.put_many([record(1000)])
        assert self.misses(registry) == 5
        assert value(registry, "kamera_store_written_bytes_total") == 1000
        assert value(registry, "kamera_store_bytes") is None

    def test_kameras_over_one_store_count_it_once(self, model: Any) -> None:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        store = MemoryStore(10**6)
        first, second = (Kamera(model, build_processor(), store) for _ in range(2))
        metrics.watch(first, "m")
        metrics.watch(second, "n")
        miss(first, 3)
        store.put_many([record(5000)])
        # The Kamera that was watched first reports the store while it is open.
        for model_name, capacity, num_misses, written in (("m", 10**6, 3, 5000), ("n", 0, 0, 0)):
            assert value(registry, "kamera_store_capacity_bytes", model_name) == capacity
            assert self.misses(registry, model_name) == num_misses
            assert value(registry, "kamera_store_written_bytes_total", model_name) == written
            assert value(registry, "kamera_windows", model_name) == 0
        first.close()
        del first
        gc.collect()
        miss(second, 1)
        assert value(registry, "kamera_store_capacity_bytes", "n") == 10**6
        assert (self.misses(registry, "m"), self.misses(registry, "n")) == (3, 1)

    def test_kameras_over_one_folder_count_it_once(self, model: Any, tmp_path: Path) -> None:
        """Hits and misses belong to each store; sizes and writes belong to the folder, before and after a close."""
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        first, second = (Kamera(model, build_processor(), tmp_path, disk_bytes=10**6) for _ in range(2))
        for kamera in (first, second):
            metrics.watch(kamera, "m")
        first.store.put_many([record(5000), record(2 * 10**6)])
        first.flush()
        miss(first, 3)
        miss(second, 4)
        expected = {"records": 1, "bytes": 5000, "capacity_bytes": 10**6, "misses_total": 7}
        expected |= {"written_bytes_total": 5000, "failed_writes_total": 1}
        assert {name: value(registry, f"kamera_store_{name}") for name in expected} == expected
        first.close()
        assert {name: value(registry, f"kamera_store_{name}") for name in expected} == expected
        second.close()
        with Kamera(model, build_processor(), tmp_path, disk_bytes=10**6) as third:
            metrics.watch(third, "m")
            miss(third, 1)
            third.store.put_many([record(6000)])
            third.flush()
            expected |= {"records": 2, "bytes": 11000, "misses_total": 8, "written_bytes_total": 11000}
            assert {name: value(registry, f"kamera_store_{name}") for name in expected} == expected


def test_a_chat_model_counts_its_answers(kamera: Kamera) -> None:
    """Prometheus reads the figures of usage_metadata."""
    registry = CollectorRegistry()
    model = ChatKamera(kamera=kamera, max_tokens=3, metrics=Metrics(registry))
    name = model.model_name
    messages = [model.invoke("Look.", conversation="a"), [*model.stream("Look.", conversation="a")][-1]]
    usages = [message.usage_metadata for message in messages]
    computed = sum(usage["input_token_details"]["cache_creation"] for usage in usages)
    assert value(registry, "kamera_prompt_tokens_total", name, origin="computed") == computed
    assert value(registry, "kamera_time_to_first_token_seconds_count", name) == 2
    assert value(registry, "kamera_windows", name) == kamera.stats().num_windows


def test_one_registry_takes_one(reply: Reply) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(SettingError, match="share that one"):
        Metrics(registry)


def test_without_the_package_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from kamera_agent import MissingExtraError\n"
        "from kamera_agent.telemetry.metrics import Metrics\n"
        "try:\n    Metrics()\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kamera-agent[metrics]" in done.stdout
