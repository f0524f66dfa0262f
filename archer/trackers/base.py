"""The interface of a tracker, and the trackers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from archer.errors import ConfigError

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "archer"
"""The project or experiment in which trackers keep runs, unless the user names another."""


class Moment(NamedTuple):
    """When something happened: after how many cycles, and after how many training episodes."""

    cycle: int
    episodes: int


class Tracker(Protocol):
    """What a tracker takes. Any method may raise anything: the run goes on without the tracker."""

    def settings(self, text: str) -> None:
        """Keep the configuration, as YAML."""

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        """Add a point to the curve of each value, by cycle and by episodes."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        """Keep a table, one row for each episode of an evaluation."""

    def text(self, name: str, text: str, at: Moment) -> None:
        """Keep a text, such as an episode."""

    def rewind(self, at: Moment) -> None:
        """Forget the points after `at`, which the run makes once more. Does nothing where points cannot be deleted."""

    def close(self) -> None:
        """Write what is left."""


class _Made(NamedTuple):
    """Where a tracker is, and the package that it needs."""

    where: str
    package: str


TRACKERS: Mapping[TrackerName, _Made] = {
    "tensorboard": _Made("archer.trackers.tensorboard:TensorBoardTracker", "tensorboardX"),
    "wandb": _Made("archer.trackers.wandb_run:WandbTracker", "wandb"),
    "mlflow": _Made("archer.trackers.mlflow_run:MlflowTracker", "mlflow"),
    "trackio": _Made("archer.trackers.trackio_run:TrackioTracker", "trackio"),
}


def require_installed(names: Sequence[TrackerName]) -> None:
    """Raise ConfigError if the package of a tracker is missing."""
    for name in names:
        if find_spec(TRACKERS[name].package) is None:
            raise ConfigError(
                f"tracking has {name}, which needs the package {TRACKERS[name].package}; install it "
                f"(requirements-trackers.lock has pins that fit), or remove {name}"
            )


def open_tracker(name: TrackerName, folder: Path, at: Moment) -> Tracker:
    """Return a tracker of the run in `folder`; a resumed run repeats what came after `at`."""
    module, _, attribute = TRACKERS[name].where.partition(":")
    tracker: Tracker = getattr(import_module(module), attribute)(folder, at)
    return tracker


def run_id(folder: Path, name: TrackerName, new: Callable[[], str]) -> str:
    """Return the id of a run in a tracker, from the run folder, so that a resumed run continues the same one.

    new: makes the id of a run that has none yet.
    """
    path = folder / "trackers" / f"{name}.id"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(new(), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def preformatted(text: str) -> str:
    """Return the text indented, which Markdown shows as it is: text of a policy is no markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
