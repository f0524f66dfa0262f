"""The report and the terminal view of runs that ended, that are active, and that are half written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from archer.cli import app
from archer.errors import ConfigError
from archer.viewer.report import report_html
from archer.viewer.runs import Run, find_runs, open_run
from archer.viewer.svg import ticks
from archer.viewer.top import watch
from bench.viewer_data import MadeRun, write_run
from learner.history.folder import EPISODES, history_files

SCRIPT = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), MadeRun("small", cycles=4, episodes=3, every=2, evaluated=2))


def _say(path: Path, text: str) -> None:
    """Let the first episode of a file say `text` in its first action."""
    rows = pq.read_table(path)
    messages = rows.column("messages").to_pylist()
    messages[0][1]["content"] = text
    at = rows.schema.get_field_index("messages")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(messages, rows.schema.field(at).type)), path)


def test_the_report_holds_curves_episodes_and_configuration_in_one_file(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.html"
    done = CliRunner().invoke(app, ["report", str(made), "--out", str(target), "--episodes", "5"])
    assert done.exit_code == 0, done.output
    html = target.read_text()
    assert html.count("<svg") >= 8
    assert "Explained variance of the critic" in html
    assert html.count("<details><summary>") == 6  # five episodes and the configuration
    assert "algorithm: archer" in html
    assert not re.search(r"""(src|href)=|url\(|@import""", html), "the file must load nothing"
    first = pq.read_table(history_files(made, EPISODES)[0]).to_pylist()[0]
    assert first["episode_id"] in html


def test_what_an_episode_says_stays_text(made: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path, MadeRun("sly", cycles=1, episodes=1, evaluated=1))
    for path in history_files(run, EPISODES):
        _say(path, SCRIPT)
    html = report_html(open_run(run), episodes=9)
    assert SCRIPT not in html
    assert "&lt;script&gt;" in html
    assert "default-src 'none'" in html


def test_a_half_written_run_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    run = write_run(tmp_path, MadeRun("half", cycles=3, episodes=2, evaluated=1))
    (run / "config.yaml").write_text("name: [half")
    (run / "summary.json").write_text('{"name": "ha')
    lines = (run / "metrics.jsonl").read_text().splitlines()
    null = json.dumps({"kind": "evaluation", "name": "null", "return_mean": None})
    nothing = json.dumps({"kind": "cycle", "metrics": {"episodes": 4, "return": None, "seconds/actor": None}})
    (run / "metrics.jsonl").write_text("\n".join([*lines[:3], "garbage", nothing, null, lines[4][:20]]))
    history_files(run, EPISODES)[0].write_bytes(b"PAR1 and no more")
    found = Run("half", run)
    html = report_html(found, episodes=4)
    assert set(found.problems) == {
        "config.yaml is missing or not complete",
        "metrics.jsonl, line 4 is no row; it is left out",
        "summary.json is not complete",
    }
    assert "line 4 is no row" in html
    console = Console(record=True, width=120, force_terminal=False)
    watch(run, console, every_s=1.0, once=True)
    assert "line 4 is no row" in console.export_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("")
    assert "No cycle and no evaluation has finished yet" in report_html(open_run(empty), episodes=4)


def test_top_shows_a_run_that_ended_and_names_what_is_no_run(made: Path) -> None:
    console = Console(record=True, width=120, force_terminal=False)
    watch(made, console, every_s=1.0, once=False)
    shown = console.export_text()
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    final = next(row for row in rows if row.get("name") == "final")
    assert f"{final['return_mean']:.2f}" in shown
    assert "finished" in shown
    assert "rollout" in shown
    with pytest.raises(ConfigError, match=r"contains runs: .*small"):
        open_run(made.parent)
    with pytest.raises(ConfigError, match="does not exist"):
        open_run(made / "nowhere")


def test_runs_are_found_below_a_folder_and_not_inside_other_runs(made: Path, tmp_path: Path) -> None:
    for name in ("b", "group/a", "b/checkpoints/cycle-00001"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "config.yaml").write_text("name: x")
    assert [run.key for run in find_runs(tmp_path)] == ["b", "group/a"]
    assert [run.key for run in find_runs(made)] == ["small"]
    assert find_runs(tmp_path / "group" / "nothing") == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-8, -0.3), (3, 3), (0, 0), (1e-6, 2e-6), (0, 12_345)])
def test_ticks_are_few_round_numbers_over_the_range(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert found[0] <= low
    assert found[-1] >= high
