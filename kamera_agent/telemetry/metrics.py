"""Prometheus metrics of answers, and of the Kameras that give them.

Names are those of vLLM where both count the same thing, with kamera_ in the place of vllm:.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from kamera_agent.errors import SettingError, StoreError

try:
    import prometheus_client as prometheus
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:
    prometheus = None  # type: ignore[assignment] # an optional package; Metrics() says how to get it

if TYPE_CHECKING:
    from kamera_agent.kamera import Kamera
    from kamera_agent.window.reply import Reply

MODEL = "model_name"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)

# Field of Timings -> its histogram: name, help.
TIMES = {
    "first_token_ms": ("time_to_first_token_seconds", "From the question to the first token."),
    "plan_ms": ("request_plan_time_seconds", "Deciding what is kept, moved and recalled, and reading the store."),
    "rebuild_ms": ("request_rebuild_time_seconds", "Relocating and recalling chunks."),
    "prefill_ms": ("request_prefill_time_seconds", "Computing the new tokens of a window."),
    "decode_ms": ("request_decode_time_seconds", "The reply behind its first token."),
}

# Field of Usage -> its counter: name, help.
COUNTS = {
    "tokens_generated": ("generation_tokens", "Tokens of replies."),
    "tokens_switched": ("switched_tokens", "Tokens computed again because the RoPE of the model switched."),
    "encoder_calls": ("encoder_calls", "Chunks of windows that went through the vision encoder for an answer."),
    "encoder_avoided": ("encoder_calls_avoided", "Chunks of windows that did not have to."),
}

# Field of KameraStats -> what a scrape reads: kind, name, help.
STATE = {
    "num_windows": ("gauge", "windows", "Living windows."),
    "pool_bytes": ("gauge", "pool_bytes", "KV pools of living windows."),
    "encoder_bytes": ("gauge", "encoder_cache_bytes", "Encoder outputs kept."),
    "failed": ("counter", "remember_failures", "Computed chunks that could not be remembered."),
    "store.num_records": ("gauge", "store_records", "Records in the store."),
    "store.num_bytes": ("gauge", "store_bytes", "Bytes in the store."),
    "store.cap_bytes": ("gauge", "store_capacity_bytes", "Bytes that the store may hold."),
    "store.hits": ("counter", "store_hits", "Records that were asked for and found."),
    "store.misses": ("counter", "store_misses", "Records that were asked for and not found."),
    "store.evictions": ("counter", "store_evictions", "Records that gave way to others."),
    "store.quarantined": ("counter", "store_quarantined", "Records found damaged and set aside."),
    "store.failed_writes": ("counter", "store_failed_writes", "Records that could not be written."),
    "store.bytes_read": ("counter", "store_read_bytes", "Bytes read from the store."),
    "store.bytes_written": ("counter", "store_written_bytes", "Bytes written to the store."),
}


class Metrics:
    """Counts answers, and tells the state of Kameras when it is scraped. Needs the extra "metrics".

    Every series has the label model_name. Safe for use from several threads.
    """

    def __init__(self, registry: prometheus.CollectorRegistry | None = None) -> None:
        """registry: where the metrics are entered; None takes prometheus-client's own.

        Raises SettingError where prometheus-client is missing, or the registry holds these metrics already.
        """
        if prometheus is None:
            raise SettingError("Metrics need prometheus-client; install it with pip install 'kamera-agent[metrics]'.")
        self._kameras: WeakKeyDictionary[Kamera, str] = WeakKeyDictionary()
        self._lock = threading.Lock()
        registry = registry or prometheus.REGISTRY
        try:
            self._times = {field: _histogram(*told, registry) for field, told in TIMES.items()}
            self._counts = {field: _counter(*told, registry) for field, told in COUNTS.items()}
            self._per_token = _histogram(
                "request_time_per_output_token_seconds", "Decode time of a reply over its tokens.", registry
            )
            self._prompt = _counter("prompt_tokens", "Tokens of windows by the origin of their KV.", registry, "origin")
            self._answers = _counter("request_success", "Answers by how they ended.", registry, "finished_reason")
            registry.register(self)
        except ValueError as error:
            raise SettingError(f"The registry takes no second Metrics; share the first. ({error})") from error

    def observe(self, reply: Reply, model_name: str) -> None:
        """Count an answer."""
        usage, timings = reply.usage, reply.timings
        for field, histogram in self._times.items():
            histogram.labels(model_name).observe(getattr(timings, field) / 1e3)
        for field, counter in self._counts.items():
            counter.labels(model_name).inc(getattr(usage, field))
        for row in reply.plan.rows:
            self._prompt.labels(model_name, row.origin).inc(row.num_tokens)
        self._answers.labels(model_name, reply.finish_reason).inc()
        if usage.tokens_generated:
            self._per_token.labels(model_name).observe(timings.decode_ms / 1e3 / usage.tokens_generated)

    def watch(self, kamera: Kamera, model_name: str) -> None:
        """Tell the state of a Kamera at every scrape, as long as it lives and is open."""
        with self._lock:
            self._kameras[kamera] = model_name

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The state of the Kameras, those of one model_name added up; called by prometheus-client."""
        with self._lock:
            kameras = list(self._kameras.items())
        sums: dict[str, Counter[str]] = {model_name: Counter() for _, model_name in kameras}
        for kamera, model_name in kameras:
            try:
                stats = kamera.stats()
            except StoreError:  # closed, or the other side of a fork
                continue
            sums[model_name].update({field: attrgetter(field)(stats) for field in STATE})
        for field, (kind, name, told) in STATE.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                f"kamera_{name}", told, labels=[MODEL]
            )
            for model_name, fields in sums.items():
                family.add_metric([model_name], fields[field])
            yield family


def _histogram(name: str, told: str, registry: prometheus.CollectorRegistry) -> prometheus.Histogram:
    return prometheus.Histogram(f"kamera_{name}", told, [MODEL], buckets=SECONDS, registry=registry)


def _counter(name: str, told: str, registry: prometheus.CollectorRegistry, *labels: str) -> prometheus.Counter:
    return prometheus.Counter(f"kamera_{name}", told, [MODEL, *labels], registry=registry)
