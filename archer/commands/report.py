"""`archer report`: write one HTML file about a run."""

from pathlib import Path
from typing import Annotated

import typer

from archer.commands.arguments import RunPath
from archer.commands.terminal import plain_console


def report(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write; by default report.html in the run's folder.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=0, help="Episodes in the report.")] = 12,
) -> None:
    """Write one self-contained HTML file about a run: curves, summary, configuration and some episodes."""
    from archer.driver.run_folder import disk_errors
    from archer.viewer.report import report_html
    from archer.viewer.runs import open_run
    from buffer.atomic_files import write_atomic

    found = open_run(run)
    target = (out or found.path / "report.html").expanduser()
    text = report_html(found, episodes=episodes)
    with disk_errors(target):
        write_atomic(target, text)
    plain_console().print(f"report {target}")
