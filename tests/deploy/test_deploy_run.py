"""The real Prometheus scrapes a real run: two learner ranks, two shards, one engine.

Grafana itself cannot be had here: it is neither in Debian nor on a registry of packages. So the tests do what Grafana
does with a dashboard: substitute the variables and ask Prometheus by `query_range`.
"""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from loop_cases import Run, archer, write_config
from scrape import DEPLOY, Prometheus, need_prometheus, prometheus, promtool

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

DASHBOARDS = DEPLOY / "grafana" / "dashboards"
NOT_HERE = ("archer_gpu_", "kl_to_clone", "held_out", "observation_nll")
"""Metrics that a run without a GPU, a divergence from the clone or held-out demonstrations does not have."""
PROCESSES = {"driver", "board", "limiter", "pool", "shard-0", "shard-1", "worker-0", "rank-0", "rank-1"}


class Scraped(NamedTuple):
    """A run that has ended, with what was scraped of it.

    targets, pages: the list of processes and the page of each, during the run; server: Prometheus with its data.
    """

    run: Run
    targets: list[dict[str, Any]]
    pages: dict[str, str]
    server: Prometheus
    status: int


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    need_prometheus()
    folder = tmp_path_factory.mktemp("scraped")
    evaluation = {"episodes": 8, "every": 1}
    config = write_config(folder, cycles=3, learner={"ranks": 2, "zero_stage": 2}, evaluation=evaluation)
    with prometheus(folder, folder / "runs") as server, archer(folder, "train", str(config)) as run:
        run.until(lambda line: line.startswith("cycle 2/3"), timeout_s=800.0)
        targets = json.loads((run.folder / "targets.json").read_text())
        pages = {target["labels"]["name"]: _page(target["targets"][0]) for target in targets}
        yield Scraped(run, targets, pages, server, run.finish())


def _page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def test_the_run_succeeds_and_writes_its_files(scraped: Scraped) -> None:
    run = scraped.run
    assert scraped.status == 0, run.output
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["episodes"] == 24
    assert summary["cycles"] == 3
    assert summary["policy_version"] == 4  # the clone, and one for each cycle
    assert 0 < summary["proof_max_gap"] < 1e-3
    assert summary["bc_return"] is not None
    assert summary["final_return"] is not None
    rows = run.rows("cycle")
    assert [row["cycle"] for row in rows] == [1, 2, 3]
    assert rows[-1]["metrics"]["critic/q_loss"] > 0
    assert (run.folder / "learning_curve.png").stat().st_size > 10_000
    assert (run.folder / "checkpoints" / "cycle-00003" / "policy" / "config.json").is_file()


def test_every_process_is_listed_and_serves_pages_that_promtool_accepts(scraped: Scraped) -> None:
    assert set(scraped.pages) == PROCESSES
    assert json.loads((scraped.run.folder / "targets.json").read_text()) == [], "the list is empty after the end"
    for target in scraped.targets:
        labels = target["labels"]
        assert labels["instance"] == f"small/{labels['name']}"
        assert target["targets"][0].startswith("127.0.0.1:")
    for name, page in scraped.pages.items():
        # The names of vLLM's own metrics have colons, which Prometheus reserves for recording rules.
        ours = "\n".join(line for line in page.splitlines() if "vllm:" not in line)
        assert promtool("check", "metrics", stdin=ours + "\n") == "", name
        assert "process_resident_memory_bytes" in page, name
        assert "_created" not in page, name
    assert "vllm:" in scraped.pages["worker-0"], "vLLM's own metrics belong to the worker's page"


def test_what_prometheus_has_agrees_with_the_run(scraped: Scraped) -> None:
    """Numbers over all processes: nothing counts twice, and evaluation is apart from training."""

    def total(metric: str) -> float:
        (series,) = scraped.server.value(f"sum(max_over_time({metric}[1h]))")
        return float(series["value"][1])

    samples = sum(row["metrics"]["critic/samples"] for row in scraped.run.rows("cycle"))
    assert total('archer_learner_samples_total{phase="critic"}') == samples, "over both ranks"
    assert total('archer_rollout_episodes_total{stage="training"}') == 24
    # Of the clone and of two cycles; the run may end before a scrape sees those of the last evaluation.
    assert total('archer_rollout_episodes_total{stage="evaluation"}') in (24, 32)
    assert total("archer_limiter_inserted_episodes_total") == 24 + 32, "with the demonstrations"
    assert total("archer_run_episodes_total") == 24
    tokens = total("archer_learner_logprob_mismatch_nats_count")
    assert tokens > 0
    assert total("archer_learner_logprob_mismatch_nats_sum") / tokens < 1e-4, "both compute the same function"
    counted = scraped.server.value("count_over_time(archer_processes[1h])")
    assert {series["metric"]["role"] for series in counted} == {
        *("driver", "board", "limiter", "pool", "shard", "rollout", "learner")
    }
    assert scraped.server.value('max_over_time(ALERTS{alertstate="firing"}[1h])') == []


@pytest.mark.parametrize("name", [path.stem for path in sorted(DASHBOARDS.glob("*.json"))])
def test_every_query_of_every_dashboard_returns_data(scraped: Scraped, name: str) -> None:
    (info,) = scraped.server.value("min_over_time(timestamp(archer_run_info)[1h:1s])")
    start = float(info["value"][1])
    empty = []
    for panel in json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$run", "small").replace("$__rate_interval", "20s")
            assert "$" not in query, query
            found = scraped.server.get("query_range", query=query, start=start, end=start + 600, step=1)["result"]
            values = [float(value) for series in found for _, value in series["values"]]
            if not any(map(math.isfinite, values)) and not any(metric in query for metric in NOT_HERE):
                empty.append(f"{panel['title']}: {query}")
    assert not empty, "\n".join(empty)
