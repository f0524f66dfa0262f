"""Write docs/metrics.md, the list of all metrics, from the objects that declare them: python deploy/metrics_page.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from actors.pool.metrics import PoolMetrics
from actors.rollout.metrics import WorkerMetrics
from archer.config.loading import load_config
from archer.driver.metrics import BoardMetrics, RunMetrics
from buffer.config import ReplayConfig
from buffer.limiter.limiter import Limiter
from buffer.limiter.metrics import LimiterMetrics
from buffer.metrics import ReplicaMetrics, ShardMetrics
from buffer.telemetry.collectors import BusyClock
from buffer.telemetry.gpus import LABELS, GpuCollector
from learner.metrics import RankMetrics, ScorerMetrics
from learner.training_metrics import TRAINING_METRICS, metric_name

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
_HEAD = """# Metrics

`make docs` writes this page from the code. Every process of a run serves these metrics for
Prometheus; [Monitoring](monitoring.md) says how Prometheus finds them, and lists dashboards and alerts.

Each series has the labels `run`, `role`, `name` and `instance` (`run/name`, the same after a restart) of its process,
beside the labels in the tables. Counters begin at 0 when their process starts, unless the table says otherwise. Times
are in seconds, sizes in bytes, log-probabilities in nats, shares from 0 to 1. The suffix `_total` belongs to the name;
a histogram has the series `_bucket`, `_sum` and `_count`.

The page of each process also has the `process_*` metrics of prometheus_client: memory, processor time, open files,
start. That of a rollout worker has vLLM's own (`vllm:*`). An inline run serves nothing.
"""


class Declared(NamedTuple):
    """A metric as its page shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Section(NamedTuple):
    """The metrics of one kind of process."""

    title: str
    metrics: tuple[Declared, ...]


def sections() -> list[Section]:
    """Return all metrics, by the process that serves them."""
    rank = RankMetrics(leads=True)
    nobody: Any = SimpleNamespace(workers=[], restarts=0, version=0)
    training = tuple(Declared(metric_name(key), "gauge", (), found.text) for key, found in TRAINING_METRICS.items())
    return [
        Section("Driver (`driver`)", declared_in(RunMetrics(load_config("demo"), ""))),
        Section("Board (`board`)", declared_in(BoardMetrics())),
        Section("Limiter (`limiter`)", declared_in(LimiterMetrics(Limiter(ReplayConfig())))),
        Section("Shards (`shard`)", declared_in(ShardMetrics())),
        Section("Replicas (`replica`)", declared_in(ReplicaMetrics())),
        Section("Pool (`pool`)", declared_in(PoolMetrics(nobody))),
        Section("Rollout workers (`rollout`)", declared_in(WorkerMetrics(BusyClock(), CollectorRegistry()))),
        Section("Learner ranks (`learner`)", declared_in(rank)),
        Section("Rank 0 of the learner", declared_in(rank.leading)),
        Section("Rank 0 of the learner: the algorithm's metrics, as in metrics.jsonl, of the latest step", training),
        Section("Critic scorer (`scorer`)", declared_in(ScorerMetrics())),
        Section("Processes with a GPU", tuple(_rows(GpuCollector(), LABELS))),
    ]


def declared_in(metrics: object) -> tuple[Declared, ...]:
    """Return the metrics among the attributes of an object, in the order of their names."""
    found: list[Any] = [value for value in vars(metrics).values() if hasattr(value, "describe")]
    return tuple(sorted(row for value in found for row in _rows(value, value._labelnames)))


def _rows(collector: Any, labels: Iterable[str]) -> Iterator[Declared]:
    for family in collector.describe():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Declared(name, family.type, tuple(labels), family.documentation)


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    for title, metrics in sections():
        parts += [f"\n## {title}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"]
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            parts.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
