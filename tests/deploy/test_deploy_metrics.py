"""docs/metrics.md equals the code, names follow the conventions, and rules are right by promtool's own tests."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from scrape import DEPLOY, RULES, need_prometheus, promtool

from learner.training_metrics import TRAINING_METRICS, metric_name

sys.path.insert(0, str(DEPLOY))  # deploy/ is no package: its programs are run, not installed
import metrics_page

DECLARED = {metric.name: metric for section in metrics_page.sections() for metric in section.metrics}


def test_the_page_lists_what_the_code_declares() -> None:
    assert metrics_page.PAGE.read_text(encoding="utf-8") == metrics_page.page(), "run python deploy/metrics_page.py"


def test_names_units_and_labels_follow_the_conventions() -> None:
    for metric in DECLARED.values():
        assert metric.name.startswith("archer_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not any(f"_{unit}" in metric.name for unit in ("ms", "milliseconds", "percent", "kb", "mb")), metric.name
        # The labels that discovery gives to each process; archer_processes counts those of other roles.
        clashes = {"run", "name", "instance", "job"} & set(metric.labels)
        assert not clashes, metric.name
        assert metric.text.endswith("."), metric.name


def test_every_metric_of_the_recorded_steps_is_described() -> None:
    recorded = (Path(__file__).parents[1] / "learner" / "recorded_losses.json").read_text()
    found = {
        key for key in _keys(json.loads(recorded)) if "/" in key and key.split("/")[0] in ("clone", "critic", "actor")
    }
    assert found
    assert found <= TRAINING_METRICS.keys()
    assert metric_name("critic/q_loss") == "archer_learner_critic_q_loss"
    assert metric_name("mine/some-loss") == "archer_learner_mine_some_loss", "of an algorithm that is not described"


def test_rules_and_their_tests_pass() -> None:
    need_prometheus()
    promtool("check", "rules", RULES / "recording.yml", RULES / "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", RULES / "alerts_test.yml")


@pytest.mark.parametrize("changed", ["900", "0.8", "7200", "> 0.98", "> 2", "0.05 *"])
def test_the_tests_of_the_rules_can_fail(tmp_path: Path, changed: str) -> None:
    """With a threshold ten thousand times as high an alert does not fire, and its test says so."""
    need_prometheus()
    text = (RULES / "alerts.yml").read_text()
    assert text.count(changed) >= 1
    raised = changed.replace("900", "9000000").replace("0.8", "8000").replace("7200", "72000000")
    raised = raised.replace("0.98", "9800").replace("> 2", "> 20000").replace("0.05", "500")
    (tmp_path / "alerts.yml").write_text(text.replace(changed, raised))
    for name in ("recording.yml", "alerts_test.yml"):
        (tmp_path / name).write_text((RULES / name).read_text())
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", tmp_path / "alerts_test.yml")


def test_every_alert_is_tested_and_every_metric_of_a_rule_exists() -> None:
    rules = [
        rule
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((RULES / name).read_text())["groups"]
        for rule in group["rules"]
    ]
    tests = (RULES / "alerts_test.yml").read_text()
    for rule in rules:
        assert rule.get("alert", "") in tests
        for metric in metrics_in(rule["expr"]):
            assert metric in DECLARED, f"{rule}: {metric}"


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    need_prometheus()
    folder = tmp_path / "deploy" / "prometheus"
    folder.mkdir(parents=True)
    for name in ("prometheus.yml", "recording.yml", "alerts.yml"):
        (folder / name).write_text((RULES / name).read_text())
    token = tmp_path / "runs" / ".prometheus" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    assert "is valid prometheus config file syntax" in promtool("check", "config", folder / "prometheus.yml")


def metrics_in(expression: str) -> set[str]:
    """Return our metrics in a query, without those of recording rules and the suffixes of histograms."""
    found = set()
    for name in re.findall(r"(?<![:\w])archer_\w+", expression):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(base if DECLARED.get(base, metrics_page.Declared("", "", (), "")).kind == "histogram" else name)
    return found


def _keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in _keys(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in _keys(inner)}
    return set()
