"""The formats that `archer import` reads. To add a format, add its reader here and its name to the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import envs
from archer.errors import ConfigError
from archer.imports.conversations import episodes_env, read_imports
from archer.imports.import_counts import ImportCounts
from archer.imports.lmrl import read_lmrl

Reader = Callable[[Path, str, Mapping[str, Any], ImportCounts], Iterator[envs.Demonstration]]
"""(file, environment id, its arguments, counts) -> the episodes that the environment could have played.

A reader counts every episode that it reads, and the reason of each that it drops. It raises ConfigError if the file has
another format.
"""


def _read_replay(path: Path, env: str, _: Mapping[str, Any], counts: ImportCounts) -> Iterator[envs.Demonstration]:
    for episode in read_imports([str(path)], env=env, asked=""):
        counts.read += 1
        yield episode


READERS: dict[str, Reader] = {
    "lmrl": read_lmrl,
    "arrow": _read_replay,
    "parquet": _read_replay,
    "run": _read_replay,
}


def format_of(path: Path) -> str:
    """Return the format that the path implies. Raises ConfigError if it implies none."""
    if path.is_dir():
        return "run"
    if path.suffix in (".arrow", ".parquet"):
        return path.suffix.removeprefix(".")
    raise ConfigError(f"the name of {path} does not show its format; give --format, one of {', '.join(READERS)}")


def env_of(path: Path, format_name: str) -> str:
    """Return the environment of the file's episodes. Raises ConfigError if the file does not name one."""
    if format_name == "lmrl":
        raise ConfigError(f"{path} does not name the environment of its episodes; give --env")
    return episodes_env(path)
