"""The new folder that a command writes its results into."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archer.errors import ConfigError


@contextmanager
def claimed(folder: Path, *, option: str = "--out", keep_partial: bool = False) -> Iterator[Path]:
    """Create `folder` before any work starts, so that an unusable folder is found early; remove it if the body fails.

    keep_partial: after a failure, keep the folder if it contains a file.
    Raises ConfigError if the folder contains something or cannot be written to; the message names `option`.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = next(folder.iterdir(), None)
        if present is None:
            probe = folder / ".probe"
            probe.touch()
            probe.unlink()
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"cannot write results to {folder}: {why}; give another folder with {option}") from None
    if present is not None:
        raise ConfigError(
            f"{folder} already contains {present.name} and is not overwritten; give another folder with {option}"
        )
    try:
        yield folder
    except BaseException:  # Ctrl-C too
        if keep_partial:
            with suppress(OSError):  # not empty
                folder.rmdir()
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
