"""Kinds of metrics that prometheus_client lacks: counters that a function reads, and histograms of whole arrays."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Labels = tuple[str, ...]

FAST_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Buckets in seconds for what takes milliseconds: a step of an environment, an append."""
SLOW_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Buckets in seconds for what takes seconds to minutes: a gradient step, a broadcast, a checkpoint."""


def process_registry() -> CollectorRegistry:
    """Return a registry that has the metrics of this process: memory, processor time, open files, start."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class BusyClock:
    """Counts the seconds in which at least one of several overlapping blocks runs, the present one included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._since = 0.0
        self._total = 0.0

    def __enter__(self) -> Self:
        with self._lock:
            if self._inside == 0:
                self._since = time.monotonic()
            self._inside += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._total += time.monotonic() - self._since

    @property
    def seconds(self) -> float:
        """Return the seconds so far."""
        with self._lock:
            return self._total + (time.monotonic() - self._since if self._inside else 0.0)


class FunctionCounter(Collector):
    """A counter whose values a function returns at each scrape, by the values of its labels.

    The function must not return less than before in the life of a process.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        read: Callable[[], Mapping[Labels, float]],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._labelnames, self._read = name, documentation, tuple(labelnames), read
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)]

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        return [family]


class ArrayHistogram(Collector):
    """A histogram that counts whole arrays, such as one number per token, with one call.

    Args:
        buckets: upper bounds, ascending; the last bucket, without a bound, is added.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.bounds = np.array(buckets, np.float64)
        self._name, self._documentation, self._labelnames = name, documentation, tuple(labelnames)
        self._lock = threading.Lock()
        self._counts: dict[Labels, np.ndarray] = {}
        self._sums: dict[Labels, float] = {}
        if not labelnames:
            self.add((), np.zeros(len(buckets) + 1), 0.0)
        registry.register(self)

    def observe(self, labels: Labels, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count each of `values` [n], `weights` [n] times if given."""
        if len(values) == 0:
            return
        places = np.searchsorted(self.bounds, values, side="left")
        counts = np.bincount(places, weights, minlength=len(self.bounds) + 1)
        self.add(labels, counts, float(np.sum(values) if weights is None else np.dot(values, weights)))

    def add(self, labels: Labels, counts: np.ndarray, total: float) -> None:
        """Add `counts` [buckets + 1] to the buckets, and `total`, the sum of the values that were counted."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0.0) + np.asarray(counts, np.float64)
            self._sums[labels] = self._sums.get(labels, 0.0) + total

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        with self._lock:
            for labels, counts in self._counts.items():
                buckets = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
                family.add_metric(labels, buckets=buckets, sum_value=self._sums[labels])
        return [family]
