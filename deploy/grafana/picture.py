"""Draw a dashboard with matplotlib, from a Prometheus that has scraped a run, for the documentation.

    python deploy/grafana/picture.py http://127.0.0.1:9090 RUN docs/images/overview.png [DASHBOARD]

It is no picture of Grafana: it reads the same JSON, places the same panels and asks the same queries.
"""

from __future__ import annotations

import json
import math
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).with_name("dashboards")
STEP_S = 2
RANGE = "20s"
"""What stands for $__rate_interval: at least four scrape intervals."""
_INK, _PALE, _GROUND = "#24292f", "#8c959f", "#f6f8fa"
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728", "#8c564b", "#17becf", "#bcbd22", "#7f7f7f")


class Source:
    """The data of one run: its queries over the whole time that it was scraped."""

    def __init__(self, url: str, run: str) -> None:
        self._url = url.rstrip("/")
        self._run = run
        seen = f'timestamp(archer_run_info{{run="{run}"}})[2d:{STEP_S}s]'
        times = [self._ask("query", query=f"{fold}_over_time({seen})") for fold in ("min", "max")]
        if not all(times):
            raise SystemExit(f"{url} has no data of a run {run!r} in the last two days")
        self.start, self.end = (float(found[0]["value"][1]) for found in times)

    def series(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a query of a dashboard."""
        query = query.replace("$run", self._run).replace("$__rate_interval", RANGE)
        return self._ask("query_range", query=query, start=self.start, end=self.end, step=STEP_S)

    def _ask(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]["result"]


def draw(source: Source, dashboard: str, out: Path) -> None:
    """Draw a dashboard and write it as PNG."""
    made = json.loads((FOLDER / f"{dashboard}.json").read_text(encoding="utf-8"))
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    figure = plt.figure(figsize=(16, 0.42 * height), facecolor=_GROUND, dpi=100)
    for panel in made["panels"]:
        place = panel["gridPos"]
        left, bottom = place["x"] / 24, 1 - (place["y"] + place["h"]) / height
        width, tall = place["w"] / 24, place["h"] / height
        if panel["type"] == "stat":
            axes = figure.add_axes((left + 0.004, bottom + 0.006, width - 0.006, tall - 0.012), facecolor="white")
            _draw_stat(axes, panel, source)
        else:
            axes = figure.add_axes((left + 0.032, bottom + 0.07, width - 0.042, tall - 0.115), facecolor="white")
            _draw_lines(axes, panel, source)
        axes.set_title(panel["title"], fontsize=9, color=_INK, loc="left", y=1.02 if panel["type"] != "stat" else 0.80)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    plt.close(figure)


def _draw_stat(axes: Any, panel: dict[str, Any], source: Source) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d0d7de")
    names = panel["options"]["textMode"] == "name"
    found = []
    for target in panel["targets"]:
        for series in source.series(target["expr"]):
            value = [float(value) for _, value in series["values"]][-1]
            # The last moment, as an instant query at the end.
            if names and float(series["values"][-1][0]) < source.end - STEP_S:
                continue
            found.append((_legend(target, series), value))
    unit = panel["fieldConfig"]["defaults"]["unit"]
    lines = [label if names else _number(value, unit) for label, value in found] or ["no data"]
    captions = [] if names or len(found) < 2 else [label for label, _ in found]
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    colour = _INK
    if len(steps) == 2 and found:
        colour = "#cf222e" if found[0][1] >= steps[1]["value"] else "#1a7f37"
    for place, text in enumerate(lines):
        x = (place + 0.5) / len(lines)
        axes.text(x, 0.40, text, ha="center", va="center", fontsize=15, color=colour, transform=axes.transAxes)
        if captions:
            axes.text(
                x, 0.13, captions[place], ha="center", va="center", fontsize=8, color=_PALE, transform=axes.transAxes
            )


def _draw_lines(axes: Any, panel: dict[str, Any], source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    lines = []
    for target in panel["targets"]:
        for series in source.series(target["expr"]):
            points = [(float(time) - source.start, float(value)) for time, value in series["values"]]
            points = [(time, value) for time, value in points if math.isfinite(value)]
            if points:
                lines.append((_legend(target, series), *zip(*points, strict=True)))
    custom = defaults.get("custom", {})
    if custom.get("stacking", {}).get("mode") == "normal" and lines:
        moments = sorted({time for _, times, _ in lines for time in times})
        heights = [[dict(zip(times, values, strict=True)).get(m, 0.0) for m in moments] for _, times, values in lines]
        colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(lines))]
        axes.stackplot(moments, heights, labels=[label for label, _, _ in lines], colors=colours, alpha=0.75)
    else:
        for i, (label, times, values) in enumerate(lines):
            axes.plot(times, values, label=label, linewidth=1.3, color=_COLOURS[i % len(_COLOURS)])
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    if "max" in defaults:
        axes.set_ylim(defaults.get("min", 0.0), 1.03 * defaults["max"])
    unit = defaults["unit"]
    axes.yaxis.set_major_formatter(lambda value, _: _number(value, unit))
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds) // 60}:{int(seconds) % 60:02d}")
    axes.set_xlim(0, source.end - source.start)
    axes.grid(color="#d0d7de", linewidth=0.5)
    axes.tick_params(labelsize=7, colors=_PALE, length=0)
    for spine in axes.spines.values():
        spine.set_color("#d0d7de")
    if lines:
        axes.legend(
            fontsize=7, frameon=False, ncol=4, loc="upper left", bbox_to_anchor=(-0.02, -0.10), handlelength=1.2
        )


def _legend(target: dict[str, Any], series: dict[str, Any]) -> str:
    text = target["legendFormat"]
    for label, value in series["metric"].items():
        text = text.replace("{{" + label + "}}", value)
    return text


def _number(value: float, unit: str) -> str:
    """Return a value as Grafana would write it, roughly."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s" and value >= 120:
        return f"{value / 60:.3g} min"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    suffix = {"s": " s", "cps": " /s"}.get(unit, "")
    if abs(value) >= 1000:
        return f"{value / 1000:.3g}k{suffix}"
    return f"{value:.3g}{suffix}"


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    draw(Source(sys.argv[1], sys.argv[2]), (sys.argv[4:] or ["overview"])[0], Path(sys.argv[3]))
