"""Prometheus metrics of answers, and of the Kameras that give them.

Where vLLM counts the same thing, the name is vLLM's, with kamera_ instead of vllm:.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from kamera_agent.errors import MissingExtraError, SettingError, StoreError

try:
    import prometheus_client as prometheus
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:
    prometheus = None  # type: ignore[assignment] # an optional package; Metrics() says how to get it

if TYPE_CHECKING:
    from kamera_agent.kamera import Kamera, KameraStats
    from kamera_agent.telemetry.drift import Drift
    from kamera_agent.window.reply import Reply

    Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)

MODEL = "model_name"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)

NATS = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
DRIFT = "KL of the first token, from a full prefill's to the answer's."
COMPARED = "Answers by how their first token compares with that of a full prefill."

# Field of Timings -> its histogram: name, help.
TIMES = {
    "first_token_ms": ("time_to_first_token_seconds", "From the question to the first token."),
    "plan_ms": ("request_plan_time_seconds", "Planning the window, and reading the store."),
    "rebuild_ms": ("request_rebuild_time_seconds", "Relocating and recalling chunks."),
    "prefill_ms": ("request_prefill_time_seconds", "Computing the new tokens of a window."),
    "decode_ms": ("request_decode_time_seconds", "The reply after its first token."),
    "settle_ms": (
        "request_settle_time_seconds",
        "Copying new chunks for the store and fitting the pool.",
    ),
}

# Field of Usage -> its counter: name, help.
COUNTS = {
    "tokens_generated": ("generation_tokens", "Tokens of replies."),
    "tokens_switched": ("switched_tokens", "Tokens computed again because the RoPE of the model switched."),
    "tokens_refreshed": ("refreshed_tokens", "Tokens of stale spans computed again, by their share of the layers."),
    "encoder_calls": ("encoder_calls", "Chunks of windows that went through the vision encoder for an answer."),
    "encoder_avoided": ("encoder_calls_avoided", "Chunks of windows that the vision encoder was not needed for."),
}

# Field of KameraStats -> the metric that a scrape makes of it: name, help.
GAUGES = {
    "num_windows": ("windows", "Living windows."),
    "pool_bytes": ("pool_bytes", "KV pools of living windows."),
    "encoder_bytes": ("encoder_cache_bytes", "Encoder outputs kept."),
    "store.num_records": ("store_records", "Records in the store."),
    "store.num_bytes": ("store_bytes", "Bytes in the store."),
    "store.cap_bytes": ("store_capacity_bytes", "Bytes that the store may hold."),
}
COUNTERS = {
    "failed": ("remember_failures", "Computed chunks that could not be remembered."),
    "skipped": ("remember_skips", "Computed chunks that were not remembered because too many waited."),
    "healed_tokens": ("healed_tokens", "Tokens computed while no answer was wanted."),
    "healing_s": ("healing_seconds", "Time that this took."),
    "unhealed": ("healing_failures", "Times that this failed."),
    "store.hits": ("store_hits", "Records that were asked for and found."),
    "store.misses": ("store_misses", "Records that were asked for and not found."),
    "store.evictions": ("store_evictions", "Records that gave way to others."),
    "store.quarantined": ("store_quarantined", "Records found damaged and set aside."),
    "store.failed_writes": ("store_failed_writes", "Records that could not be written."),
    "store.bytes_read": ("store_read_bytes", "Bytes read from the store."),
    "store.bytes_written": ("store_written_bytes", "Bytes written to the store."),
}

# These belong to the store object; the other fields of a store belong to its medium.
STORES_OWN = ("store.hits", "store.misses", "store.bytes_read")


class Metrics:
    """Counts answers, and reports the state of Kameras at every scrape. Needs the extra "metrics".

    Every series has the label model_name. Safe for use from several threads.
    """

    def __init__(self, registry: prometheus.CollectorRegistry | None = None) -> None:
        """registry: the one that the metrics are entered in; None takes prometheus-client's own.

        Raises MissingExtraError without prometheus-client, SettingError when the registry holds these metrics already.
        """
        if prometheus is None:
            raise MissingExtraError("Metrics", "prometheus-client", "metrics")
        self._kameras: WeakKeyDictionary[Kamera, str] = WeakKeyDictionary()
        # By model_name and field; and, by the object that counts, the part of its counts that is in the totals.
        self._totals: dict[str, Counter[str]] = {}
        self._counted: WeakKeyDictionary[object, Counter[str]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._registry = registry = registry or prometheus.REGISTRY
        try:
            self._times = {field: _histogram(name, text, registry) for field, (name, text) in TIMES.items()}
            self._counts = {field: _counter(name, text, registry) for field, (name, text) in COUNTS.items()}
            self._per_token = _histogram(
                "request_time_per_output_token_seconds", "Decode time of a reply over its tokens.", registry
            )
            self._prompt = _counter("prompt_tokens", "Tokens of windows by the origin of their KV.", registry, "origin")
            self._answers = _counter("request_success", "Answers by how they ended.", registry, "finished_reason")
            self._drift = _histogram("drift_kl_nats", DRIFT, registry, NATS)
            self._compared = _counter("compared_answers", COMPARED, registry, "outcome")
            self._comparing = _counter("comparing_seconds", "Time that comparisons took beside answers.", registry)
            self._fallbacks = _counter("fallback_answers", "Answers that a guard restricted to exact KV.", registry)
            registry.register(self)
        except ValueError as error:
            raise SettingError(f"The registry already holds a Metrics; share that one. ({error})") from error

    def page(self) -> bytes:
        """All metrics of the registry, as a scrape gets them: text in Prometheus' format."""
        return prometheus.generate_latest(self._registry)

    def observe(self, reply: Reply, model_name: str, *, exact_only: bool = False) -> None:
        """Count an answer. exact_only: whether its conversation had fallen back to exact KV."""
        usage, timings = reply.usage, reply.timings
        for field, histogram in self._times.items():
            histogram.labels(model_name).observe(getattr(timings, field) / 1e3)
        for field, counter in self._counts.items():
            counter.labels(model_name).inc(getattr(usage, field))
        for row in reply.plan.rows:
            self._prompt.labels(model_name, row.origin).inc(row.num_tokens)
        self._answers.labels(model_name, reply.finish_reason).inc()
        self._fallbacks.labels(model_name).inc(exact_only)
        if reply.plan.is_exact:
            self._compared.labels(model_name, "exact").inc()
        if usage.tokens_generated:
            self._per_token.labels(model_name).observe(timings.decode_ms / 1e3 / usage.tokens_generated)

    def observe_drift(self, drift: Drift | None, model_name: str, seconds: float = 0.0) -> None:
        """Count a comparison of an answer with a full prefill. drift: None where it gave way to another answer.

        seconds: that it took beside answers.
        """
        self._comparing.labels(model_name).inc(seconds)
        outcome = "unfinished"
        if drift:
            self._drift.labels(model_name).observe(drift.kl)
            outcome = "agrees" if drift.agrees else "differs"
        self._compared.labels(model_name, outcome).inc()

    def watch(self, kamera: Kamera, model_name: str) -> None:
        """Report the state of a Kamera at every scrape while it is open, and keep its counts afterwards.

        A Kamera that is dropped without close() keeps the counts of the last scrape.
        """
        with self._lock:
            if kamera not in self._kameras:
                kamera.before_close(self._count_last)
            self._kameras[kamera] = model_name
            self._totals.setdefault(model_name, Counter())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The state of the Kameras, added up by model_name; called by prometheus-client.

        A store of several Kameras is reported once, under the model_name of the one that was watched first.
        """
        levels: dict[str, Counter[str]] = {}
        seen: set[tuple[int, str]] = set()
        with self._lock:
            for kamera, model_name in list(self._kameras.items()):
                try:
                    stats = kamera.stats()
                except StoreError:  # closed, or inherited through a fork
                    continue
                self._count(kamera, stats, model_name)
                sums = levels.setdefault(model_name, Counter())
                for field in GAUGES:
                    origin = id(_origin(kamera, field)), field
                    if origin not in seen:
                        seen.add(origin)
                        sums[field] += attrgetter(field)(stats)
            totals = {model_name: Counter(sums) for model_name, sums in self._totals.items()}
        for field, (name, text) in GAUGES.items():
            yield _fill(GaugeMetricFamily(f"kamera_{name}", text, labels=[MODEL]), field, levels)
        for field, (name, text) in COUNTERS.items():
            yield _fill(CounterMetricFamily(f"kamera_{name}", text, labels=[MODEL]), field, totals)

    def _count(self, kamera: Kamera, stats: KameraStats, model_name: str) -> None:
        """Add the counts that are new since the last call to totals that outlive the Kamera. Needs the lock."""
        for field in COUNTERS:
            counted = self._counted.setdefault(_origin(kamera, field), Counter())
            count = attrgetter(field)(stats)
            self._totals[model_name][field] += count - counted[field]
            counted[field] = count

    def _count_last(self, kamera: Kamera) -> None:
        """Add the counts since the last scrape of a Kamera that closes."""
        try:
            kamera.store.flush()
            with self._lock:
                self._count(kamera, kamera.stats(), self._kameras[kamera])
        except StoreError:  # closed before the Kamera, or inherited through a fork
            return


def _origin(kamera: Kamera, field: str) -> object:
    """The object that a field of KameraStats belongs to. Several Kameras may have the same store or medium."""
    if not field.startswith("store."):
        return kamera
    return kamera.store if field in STORES_OWN else kamera.store.medium


def _fill(family: Family, field: str, sums: Mapping[str, Counter[str]]) -> Family:
    for model_name, fields in sums.items():
        family.add_metric([model_name], fields[field])
    return family


def _histogram(
    name: str, text: str, registry: prometheus.CollectorRegistry, buckets: Sequence[float] = SECONDS
) -> prometheus.Histogram:
    return prometheus.Histogram(f"kamera_{name}", text, [MODEL], buckets=buckets, registry=registry)


def _counter(name: str, text: str, registry: prometheus.CollectorRegistry, *labels: str) -> prometheus.Counter:
    return prometheus.Counter(f"kamera_{name}", text, [MODEL, *labels], registry=registry)
