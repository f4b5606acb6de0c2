"""The metrics of a server, for Prometheus.

They are plain numbers that the event loop's thread changes, and become Prometheus's metrics when they are asked for:
locks and checks for each of them would be a good part of a short request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

SECONDS = (*(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2, 5)), 10.0, 30.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
FILL = tuple(part / 10 for part in range(1, 11))

NO_MODEL = ""  # the label of requests for none that there is: names are the clients', who must not create labels


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds as text, and how many values are no larger."""
        total = 0
        found = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return found


@dataclass
class ModelMetrics:
    """Those of one model."""

    steps: int = 0
    opened: int = 0
    live: int = 0
    expired: int = 0
    refused: int = 0
    state_bytes: int = 0
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    fill: Histogram = field(default_factory=lambda: Histogram(FILL))
    queue: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    compute: Histogram = field(default_factory=lambda: Histogram(SECONDS))


#: Attributes of ModelMetrics, their names and what they are.
COUNTERS = {
    "steps": ("steps", "Steps that have been computed."),
    "opened": ("sessions_opened", "Sessions opened."),
    "expired": ("sessions_expired", "Sessions closed because they were not used."),
    "refused": ("sessions_refused", "Sessions refused because all places were taken."),
}
GAUGES = {
    "live": ("sessions_live", "Sessions that are open."),
    "state_bytes": ("state_bytes", "Memory of the sessions' states."),
}
HISTOGRAMS = {
    "rows": ("batch_rows", "Rows of a batch."),
    "fill": ("batch_fill", "Rows of a batch over the most that it can have."),
    "queue": ("queue_seconds", "From a request's arrival to its batch."),
    "compute": ("compute_seconds", "Computing a batch."),
}


class Metrics(Collector):
    """All metrics of a server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._models: dict[str, ModelMetrics] = {}
        self._registry.register(self)

    def of(self, model: str) -> ModelMetrics:
        """The metrics of a model."""
        return self._models.setdefault(model, ModelMetrics())

    def count_request(self, model: str, protocol: str, outcome: str) -> None:
        """Count a request that has ended; model: a name that is served, or NO_MODEL."""
        self._requests[model, protocol, outcome] += 1

    def collect(self) -> Iterable[Metric]:
        labels = ["model", "protocol", "outcome"]
        requests = CounterMetricFamily("fastrnn_requests", "Requests that have ended.", labels=labels)
        for values, count in self._requests.items():
            requests.add_metric(list(values), count)
        yield requests
        yield from self._collect_models()

    def _collect_models(self) -> Iterator[Metric]:
        for attribute, (name, text) in COUNTERS.items():
            counter = CounterMetricFamily(f"fastrnn_{name}", text, labels=["model"])
            for model, found in self._models.items():
                counter.add_metric([model], getattr(found, attribute))
            yield counter
        for attribute, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(f"fastrnn_{name}", text, labels=["model"])
            for model, found in self._models.items():
                gauge.add_metric([model], getattr(found, attribute))
            yield gauge
        for attribute, (name, text) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"fastrnn_{name}", text, labels=["model"])
            for model, found in self._models.items():
                values: Histogram = getattr(found, attribute)
                histogram.add_metric([model], values.buckets(), values.sum)
            yield histogram

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
