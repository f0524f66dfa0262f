"""A small file system in memory: paths and texts. A folder exists as long as it contains a file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from envs.toolkit.tool_calls import ToolError

MAX_FILES = 40
MAX_SIZE = 1_000
"""Greatest size of one file, in characters."""
MAX_PATH = 60

_PATH = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


class Files:
    """The files. An operation that cannot be done raises ToolError."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)

    def list(self, folder: str = "") -> str:
        """Return the paths in a folder and below it; of all files without a folder."""
        prefix = folder.strip("/") + "/" if folder.strip("/.") else ""
        found = sorted(path for path in self.files if path.startswith(prefix))
        if not found:
            raise ToolError(f"no folder {folder[:MAX_PATH]!a}" if prefix else "there are no files")
        return ", ".join(found)

    def read(self, path: str) -> str:
        self._require(path)
        return self.files[path] or "(empty)"

    def write(self, path: str, text: str) -> str:
        self._check_new(path, replaces=True)
        self.files[path] = self._sized(text)
        return f"Wrote {path}."

    def edit(self, path: str, old: str, new: str) -> str:
        """Replace every occurrence of `old` in a file with `new`."""
        self._require(path)
        if not old or old not in self.files[path]:
            raise ToolError(f"{path} has no {old[:20]!a}")
        self.files[path] = self._sized(self.files[path].replace(old, new))
        return f"Changed {path}."

    def move(self, path: str, to: str) -> str:
        self._require(path)
        self._check_new(to, replaces=False)
        self.files[to] = self.files.pop(path)
        return f"Moved {path} to {to}."

    def delete(self, path: str) -> str:
        self._require(path)
        del self.files[path]
        return f"Deleted {path}."

    def _require(self, path: str) -> None:
        if path not in self.files:
            raise ToolError(f"no file {path[:MAX_PATH]!a}")

    def _check_new(self, path: str, *, replaces: bool) -> None:
        if len(path) > MAX_PATH or not _PATH.fullmatch(path):
            raise ToolError(f"no path: {path[:MAX_PATH]!a}")
        if path in self.files:
            if not replaces:
                raise ToolError(f"there is a file {path} already")
            return
        parents = {path[:i] for i, character in enumerate(path) if character == "/"}
        if not parents.isdisjoint(self.files) or any(other.startswith(f"{path}/") for other in self.files):
            raise ToolError(f"{path} is a file and a folder at once")
        if len(self.files) >= MAX_FILES:
            raise ToolError(f"there are {MAX_FILES} files already")

    @staticmethod
    def _sized(text: str) -> str:
        if len(text) > MAX_SIZE:
            raise ToolError(f"larger than {MAX_SIZE} characters")
        return text
