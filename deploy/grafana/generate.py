"""Write the dashboards as JSON for Grafana 11: python deploy/grafana/generate.py."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broadcast_board import BROADCAST
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from learner_board import LEARNER
from overview_board import OVERVIEW
from panels import Dashboard, Panel
from replay_board import REPLAY
from rollouts_board import ROLLOUTS

DASHBOARDS = (OVERVIEW, ROLLOUTS, REPLAY, LEARNER, BROADCAST)
FOLDER = Path(__file__).with_name("dashboards")
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def write() -> None:
    """Write one file for each dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for made in DASHBOARDS:
        (FOLDER / f"{made.uid.removeprefix('archer-')}.json").write_text(text(made), encoding="utf-8")


def text(made: Dashboard) -> str:
    """Return the JSON of a dashboard."""
    builder = (
        dashboard.Dashboard(made.title)
        .uid(made.uid)
        .description(made.text)
        .tags(list(made.tags))
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("run")
            .label("Run")
            .datasource(SOURCE)
            .query("label_values(archer_run_info, run)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["archer"])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for panel in _placed(made):
        builder = builder.with_panel(panel)
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _placed(made: Dashboard) -> Iterator[Any]:
    """Yield the builder of each panel, numbered and with its place on the grid."""
    number, top = 0, 0
    for height, panels in made.rows:
        left = 0
        for panel in panels:
            number += 1
            place = models.GridPos(h=height, w=panel.width, x=left, y=top)
            yield _builder(panel).id(number).grid_pos(place)
            left += panel.width
        top += height


def _builder(panel: Panel) -> Any:
    made = _stat(panel) if panel.kind == "stat" else _timeseries(panel)
    made = made.title(panel.title).description(panel.text).datasource(SOURCE).unit(panel.unit)
    for letter, (expression, legend) in zip(string.ascii_uppercase, panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)
        made = made.with_target(query.instant() if panel.kind == "stat" and panel.names else query.range())
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.NONE if panel.good is None else kinds.BigValueColorMode.BACKGROUND)
        .text_mode(kinds.BigValueTextMode.NAME if panel.names else kinds.BigValueTextMode.AUTO)
    )
    if panel.good is None:
        return made
    steps = [models.Threshold(value=None, color="green"), models.Threshold(value=_above(panel.good), color="red")]
    return made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))


def _above(value: float) -> float:
    """Return where red begins: a threshold of Grafana holds from its value on."""
    return value + 1 if value == int(value) else value


def _timeseries(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(60 if panel.kind == "bars" else 5)
        .show_points(kinds.VisibilityMode.AUTO)
        .span_nulls(60_000.0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .placement(kinds.LegendPlacement.BOTTOM)
            .display_mode(kinds.LegendDisplayMode.LIST)
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if panel.kind == "bars":
        made = made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if panel.most is not None:
        made = made.min(0.0).max(panel.most)
    if panel.log:
        made = made.scale_distribution(common.ScaleDistributionConfig().type(kinds.ScaleDistribution.LOG).log(10))
    return made


if __name__ == "__main__":
    write()
