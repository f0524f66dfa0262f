"""Trackio: a local SQLite file that `trackio show` displays, or a Space of Hugging Face; the package trackio."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from archer.trackers.base import PROJECT, Moment, preformatted


class TrackioTracker:
    """Writes one run of the project `TRACKIO_PROJECT`, by default `archer`, in Trackio's folder (TRACKIO_DIR).

    A point has the cycle as its step, and `cycle` and `episodes` as values, which the page offers as x axes.
    """

    def __init__(self, folder: Path, at: Moment) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at import
        import trackio  # late: only a run with this tracker needs it

        self._trackio = trackio
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=folder.name,
            resume="allow" if at.cycle else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def settings(self, text: str) -> None:
        self._run.config.update(yaml.safe_load(text))

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        self._run.log({**values, **at._asdict()}, step=at.cycle)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
        self._run.log({name: self._trackio.Table(dataframe=frame)}, step=at.cycle)

    def text(self, name: str, text: str, at: Moment) -> None:
        self._run.log({name: self._trackio.Markdown(preformatted(text))}, step=at.cycle)

    def rewind(self, at: Moment) -> None:
        """Do nothing: Trackio cannot delete points. A cycle that is repeated has a second point."""

    def close(self) -> None:
        self._run.finish()
