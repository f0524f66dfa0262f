"""The dashboards as files: what the generator writes, places and units of panels, and queries that parse.

Grafana itself cannot be had here: it is neither in Debian nor on a registry of packages. test_deploy_run.py asks a real
Prometheus what each query returns.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from scrape import DEPLOY, need_prometheus, promtool
from test_deploy_metrics import DECLARED, metrics_in

GRAFANA = DEPLOY / "grafana"
sys.path.insert(0, str(GRAFANA))  # deploy/ is no package: its programs are run, not installed
import generate  # noqa: E402

FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
UNITS = {"short", "none", "s", "bytes", "percentunit", "cps", "suffix: nats"}
"""Units that Grafana knows by these names; `suffix: X` writes X behind the number."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def queries(path: Path) -> list[str]:
    """Return each query with its variables substituted."""
    found = [target["expr"] for panel in read(path)["panels"] for target in panel["targets"]]
    return [query.replace("$run", "small").replace("$__rate_interval", "1m") for query in found]


def test_the_files_are_what_the_generator_writes() -> None:
    written = {f"{made.uid.removeprefix('archer-')}.json": generate.text(made) for made in generate.DASHBOARDS}
    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == written, "run deploy/grafana/generate.py"
    assert set(written) == {"overview.json", "rollouts.json", "replay.json", "learner.json", "broadcast.json"}
    uids = [read(path)["uid"] for path in FILES]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_their_own_ids_and_places_and_known_units(path: Path) -> None:
    panels = read(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
    for panel in panels:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert names == sorted(set(names)), panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_overview_fits_on_one_screen() -> None:
    # A unit of height is 38 pixels: 26 of them and Grafana's bars fill a screen of 1080 lines.
    places = [panel["gridPos"] for panel in read(GRAFANA / "dashboards" / "overview.json")["panels"]]
    assert max(place["y"] + place["h"] for place in places) <= 26


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_dashboard_has_a_variable_for_the_run_and_links_to_the_others(path: Path) -> None:
    made = read(path)
    variables = {variable["name"]: variable for variable in made["templating"]["list"]}
    assert set(variables) == {"datasource", "run"}
    assert variables["run"]["query"] == "label_values(archer_run_info, run)"
    assert made["links"][0]["tags"] == made["tags"] == ["archer"]
    assert all('run="$run"' in target["expr"] for panel in made["panels"] for target in panel["targets"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_queries_parse_and_name_metrics_that_exist(path: Path, tmp_path: Path) -> None:
    for query in queries(path):
        assert "$" not in query, query
        assert metrics_in(query) <= DECLARED.keys(), query
    need_prometheus()
    rules = [{"record": f"test:query{number}", "expr": query} for number, query in enumerate(queries(path))]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_grafana_and_prometheus_are_provisioned_with_these_files() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = {
        name: [volume.split(":")[:2] for volume in service["volumes"]] for name, service in compose["services"].items()
    }
    for source, _ in (mount for found in mounts.values() for mount in found if mount[0].startswith("./")):
        assert (DEPLOY / source).is_dir(), source
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "archer.yaml").read_text())["providers"][0]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounts["grafana"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/overview.json"
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    assert "--web.listen-address=127.0.0.1:9090" in compose["services"]["prometheus"]["command"]
    assert source["datasources"][0]["url"] == "http://127.0.0.1:9090"
    interval = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == interval
