"""MLflow, on the server that MLFLOW_TRACKING_URI names or in a file of the folder of runs; the package mlflow."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archer.trackers.base import PROJECT, Moment, run_id

BY_EPISODES = "by_episodes"
"""MLflow has one axis of whole numbers for each metric: NAME has the cycle, and by_episodes/NAME the episodes."""
_MOST = 1000
"""Metrics of one request that MLflow accepts."""


class MlflowTracker:
    """Writes one run of the experiment `MLFLOW_EXPERIMENT_NAME`, by default `archer`.

    Without MLFLOW_TRACKING_URI it writes `mlflow.db` and `mlartifacts/` in the folder of runs.
    """

    def __init__(self, folder: Path, at: Moment) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import
        from mlflow import MlflowClient  # late: only a run with this tracker needs it

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it would write about its database to the terminal
        runs = folder.resolve().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{runs}/mlflow.db")
        place = None if uri else (runs / "mlartifacts").as_uri()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        where = found.experiment_id if found else self._client.create_experiment(experiment, artifact_location=place)
        self._id = run_id(
            folder, "mlflow", lambda: str(self._client.create_run(where, run_name=folder.name).info.run_id)
        )
        self._client.update_run(self._id, status="RUNNING")

    def settings(self, text: str) -> None:
        # An artifact, and no parameters: MLflow refuses a parameter that a resumed run has changed.
        self._client.log_text(self._id, text, "config.yaml")

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(named, value, now, step)
            for name, value in values.items()
            for named, step in ((name, at.cycle), (f"{BY_EPISODES}/{name}", at.episodes))
        ]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        # In the form of `log_table`, which would append to the table of an evaluation that a resumed run repeats.
        text = json.dumps({"columns": list(columns), "data": [list(row) for row in rows]})
        self._client.log_text(self._id, text, f"{name}.json")

    def text(self, name: str, text: str, at: Moment) -> None:
        self._client.log_text(self._id, text, f"{name}.txt")

    def rewind(self, at: Moment) -> None:
        """Do nothing: MLflow cannot delete points. A cycle that is repeated has a second point."""

    def close(self) -> None:
        self._client.set_terminated(self._id)
