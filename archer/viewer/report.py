"""`archer report`: one HTML file with the curves, the summary, the configuration and some episodes of a run."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

from archer.driver.progress import duration
from archer.viewer.conversation import conversation
from archer.viewer.curves import charts
from archer.viewer.runs import Run, interval, is_number
from archer.viewer.svg import chart_svg, number
from archer.viewer.tables import episode_files, newest_files, read_episode, read_parquet, value_files

_ENVIRONMENT_ONLY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page may run no program and load nothing: what an episode says stays text even if an escape were missing."""


def report_html(run: Run, *, episodes: int) -> str:
    """Return the report of a run as HTML, with up to `episodes` episodes from its first to its last policy version."""
    overview = run.overview()
    title = escape(f"{overview['name']} on {overview['env'] or 'an unknown task'}")
    style = files("archer.viewer").joinpath("static", "report.css").read_text(encoding="utf-8")
    body = [
        f"<h1>{title}</h1>",
        f"<p class=lead>{escape(_lead(overview))}</p>",
        *(f"<p class=problem>{escape(problem)}</p>" for problem in overview["problems"]),
        *(f"<p class=note>{escape(str(note))}</p>" for note in run.summary.get("notes") or []),
        "<h2>Curves</h2><p class=dim>The horizontal axes count collected episodes.</p>",
        f"<div class=charts>{''.join(_charts(run)) or '<p>No cycle and no evaluation has finished yet.</p>'}</div>",
        "<h2>Evaluations</h2>",
        _evaluations(run),
        "<h2>Episodes</h2>",
        "".join(_episodes(run, episodes)) or "<p>The run folder holds no episodes.</p>",
        "<h2>Summary</h2>",
        _summary(run),
        "<h2>Configuration</h2>",
        f"<details><summary>config.yaml</summary><pre>{escape(run.config_text)}</pre></details>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_ENVIRONMENT_ONLY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _lead(overview: dict[str, Any]) -> str:
    parts = [str(overview["algorithm"] or ""), overview["state"], f"{overview['cycle']} of {overview['cycles']} cycles"]
    if overview["episodes"] is not None:
        parts.append(f"{overview['episodes']:,.0f} episodes")
    if overview["wall_seconds"]:
        parts.append(duration(overview["wall_seconds"]))
    return ", ".join(part for part in parts if part)


def _charts(run: Run) -> Iterator[str]:
    for chart in charts(run):
        keys = "".join(
            f'<span class="key s{at % 6}">{escape(series["label"])}</span>' for at, series in enumerate(chart["series"])
        )
        yield f"<figure><figcaption>{escape(chart['title'])} {keys}</figcaption>{chart_svg(chart)}</figure>"


def _evaluations(run: Run) -> str:
    rows = [
        (
            row.get("name"),
            f"{row['return_mean']:.2f}",
            interval(row),
            f"{row['success_rate']:.0%}" if is_number(row.get("success_rate")) else "",
            row.get("episodes"),
        )
        for row in run.evaluations
    ]
    return _table(("evaluation", "return", "95% interval", "success", "episodes"), rows) if rows else "<p>None.</p>"


def _summary(run: Run) -> str:
    plain = {key: value for key, value in run.summary.items() if key != "notes"}
    if not plain:
        return "<p>The run has written no summary: it is active, or it was stopped.</p>"
    return _table(("field", "value"), [(key, _value(value)) for key, value in plain.items()])


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _episodes(run: Run, most: int) -> Iterator[str]:
    """Yield one episode of each of up to `most` files, evenly spread over the run."""
    paths = episode_files(run)
    chosen = (
        [paths[round(i * (len(paths) - 1) / max(most - 1, 1))] for i in range(min(most, len(paths)))] if most else []
    )
    for path in dict.fromkeys(chosen):
        if row := read_episode(path, 0):
            yield _episode(conversation(row, _values(run, row["episode_id"])))


def _values(run: Run, episode_id: str) -> list[dict[str, Any]]:
    found = []
    for paths, newest in ((value_files(run), False), (newest_files(run), True)):
        for path in paths:
            table = read_parquet(path)
            if table is not None:
                found += [{**row, "newest": newest} for row in table.to_pylist() if row["episode_id"] == episode_id]
    return found


def _episode(episode: dict[str, Any]) -> str:
    success = {True: ", success", False: ", failure", None: ""}[episode["success"]]
    stage = episode["evaluation"] or episode["stage"] or "demonstration"
    result = f"return {episode['return']:.2f}{success}, {len(episode['turns'])} turns"
    head = f"{stage}, cycle {episode['cycle'] or 0}: {result}"
    parts = [_message(message) for message in episode["opening"]]
    for turn in episode["turns"]:
        figures = [f"reward {turn['reward']:.3g}"]
        if turn["values"]:
            used = turn["values"][0]
            figures += [
                f"{name} {used[name]:.3f}" for name in ("q", "v", "advantage", "target") if used[name] is not None
            ]
        if newest := turn["newest"]:
            seen = [f"{name} {newest[name]:.3f}" for name in ("q", "v", "advantage") if newest[name] is not None]
            figures.append(f"critic of cycle {newest['cycle']}: {', '.join(seen)}")
        figures += [turn["stop"]] if turn["stop"] and not turn["stop"].startswith("stop") else []
        parts.append(_message({"role": "assistant", "content": turn["action"]}, ", ".join(figures)))
        parts += [_message(message) for message in turn["after"]]
    ids = f"{episode['episode_id']}, seed {episode['seed']}, ended: {episode['end']}"
    return f"<details><summary>{escape(head)}</summary><p class=dim>{escape(ids)}</p>{''.join(parts)}</details>"


def _message(message: dict[str, str], figures: str = "") -> str:
    role = message["role"] if message["role"] in ("assistant", "system", "tool", "user") else "user"
    note = f"<span class=dim>{escape(figures)}</span>" if figures else ""
    text = escape(message["content"] or "")
    return f'<div class="message {role}"><b>{escape(message["role"])}</b> {note}<pre>{text}</pre></div>'
