"""What `archer import` can read: a format turns a file into episodes and counts what it leaves out, by reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import envs
from archer.errors import ConfigError
from archer.imports.lmrl import LmrlFormat
from archer.imports.reading import episodes_env, read_imports
from archer.imports.tally import Tally
from envs.errors import nearest


class Format(Protocol):
    """One way in which others write episodes down."""

    name: str
    description: str

    def env_of(self, path: Path) -> str:
        """The environment that the file's episodes are of. Raises ConfigError where it does not say so."""
        ...

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

    def env_of(self, path: Path) -> str:
        return episodes_env(path)

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
        ReplayFormat("run", "a run folder, a checkpoint, a replay folder or an export"),
    )
}
"""Every format by its name. Another is another entry."""


def find_format(name: str) -> Format:
    """Raises ConfigError that names the nearest."""
    if name not in FORMATS:
        raise ConfigError(f"--format {name!r} is unknown: {nearest(name, FORMATS)}")
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """The format that a path tells. Raises ConfigError where it could be any."""
    if path.is_dir():
        return FORMATS["run"]
    found = {".parquet": "parquet", ".arrow": "arrow"}.get(path.suffix)
    if found is None:
        raise ConfigError(f"{path} does not tell how it is written; give --format, one of {', '.join(FORMATS)}")
    return FORMATS[found]
