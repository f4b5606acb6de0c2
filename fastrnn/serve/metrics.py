"""The metrics of a server, for Prometheus."""

from __future__ import annotations

import functools
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (*(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2, 5)), 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FILL = tuple(part / 10 for part in range(1, 11))

NO_MODEL = ""  # the label of requests for none that there is: names are the clients', who must not create labels


class Metrics:
    """A registry and its metrics, all labelled by model."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def make(kind: type[Any], name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"fastrnn_{name}", text, ("model", *labels), registry=self.registry, **options)

        self._requests = make(Counter, "requests_total", "Requests that have ended.", "protocol", "outcome")
        self.steps = make(Counter, "steps_total", "Steps that have been computed.")
        self.opened = make(Counter, "sessions_opened_total", "Sessions opened.")
        self.live = make(Gauge, "sessions_live", "Sessions that are open.")
        self.expired = make(Counter, "sessions_expired_total", "Sessions closed because they were not used.")
        self.refused = make(Counter, "sessions_refused_total", "Sessions refused because all slots were taken.")
        self.rows = make(Histogram, "batch_rows", "Rows of a batch.", buckets=ROWS)
        self.fill = make(Histogram, "batch_fill", "Rows of a batch over the most that it can have.", buckets=FILL)
        self.queue = make(Histogram, "queue_seconds", "From a request's arrival to its batch.", buckets=SECONDS)
        self.compute = make(Histogram, "compute_seconds", "Computing a batch.", buckets=SECONDS)
        self.state_bytes = make(Gauge, "state_bytes", "Memory of the sessions' states.")
        self._request = functools.lru_cache(maxsize=None)(self._requests.labels)

    def count_request(self, model: str, protocol: str, outcome: str) -> None:
        """Count a request; model: a name that is served, or NO_MODEL."""
        self._request(model, protocol, outcome).inc()

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
