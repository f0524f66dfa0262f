"""What `archer import` can read: a format turns a file into episodes and counts what it leaves out, by reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import envs
from archer.errors import ConfigError
from archer.imports import read_imports
from archer.lmrl import LmrlFormat
from archer.tally import Tally
from envs.errors import nearest


class Format(Protocol):
    """One way in which others write episodes down."""

    name: str
    description: str

    def read(self, path: Path, env: str, kwargs: Mapping[str, Any], tally: Tally) -> Iterator[envs.Demonstration]:
        """The episodes of the file that the environment could have played; `tally` hears of the others.

        Raises ConfigError where the file as a whole is none of this format.
        """
        ...


class ReplayFormat:
    """Files and folders in the replay schema, which `demonstrations.files` takes as they are."""

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description

    def read(self, path: Path, env: str, kwargs: Mapping[str, Any], tally: Tally) -> Iterator[envs.Demonstration]:
        for episode in read_imports([str(path)], env=env, asked=""):
            tally.read += 1
            tally.kept += 1
            yield episode


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        LmrlFormat(),
        ReplayFormat("arrow", "an Arrow IPC file in the replay schema, such as a run's demonstrations.arrow"),
        ReplayFormat("parquet", "a Parquet file in the replay schema"),
        ReplayFormat("run", "a run folder, a checkpoint or a replay folder, of which the replay's log is read"),
    )
}
"""Every format by its name. Another is another entry."""


def find_format(name: str) -> Format:
    """Raises ConfigError that names the nearest."""
    if name not in FORMATS:
        raise ConfigError(f"--format {name!r} is unknown: {nearest(name, FORMATS)}")
    return FORMATS[name]
