"""The folder that a command's `--out` names: claimed before anything is played, given back where nothing came of it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archer.errors import ConfigError


@contextmanager
def claimed(folder: Path, *, option: str = "--out") -> Iterator[Path]:
    """Claim `folder` at once, so that nothing is played in vain; given back where nothing was written."""
    folder = claim(folder.expanduser(), option=option)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # not empty: something had finished
            folder.rmdir()
        raise


def claim(folder: Path, *, option: str = "--out") -> Path:
    """Make the folder, or take one that is empty. Raises ConfigError, which names the option that gave it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next(folder.iterdir(), None)
        if taken is None:
            probe = folder / ".probe"
            probe.touch()
            probe.unlink()
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"results can't be written to {folder}: {why}; give another folder by {option}") from None
    if taken is not None:
        raise ConfigError(f"{folder} already holds {taken.name}, which won't be overwritten; give another by {option}")
    return folder
