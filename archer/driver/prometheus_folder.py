"""What Prometheus reads in a folder of runs: a link to the list of each run, and the token of all of them.

    runs/.prometheus/demo.json -> ../demo/targets.json
    runs/.prometheus/token

The links exist because `file_sd_configs` of Prometheus allows a wildcard in the name of a file only, and not in the
name of its folder. There is one token, because a scrape job has one file of credentials.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from archer.driver.run_folder import RunFolder, disk_errors
from archer.errors import RunError
from buffer.atomic_files import write_atomic

FOLDER = ".prometheus"
TOKEN_FILE = "token"


def announce(run: RunFolder) -> str:
    """Link the list of `run` in the folder of runs, and return the token of that folder.

    The first run of the folder writes the token; only its owner may read it. Links to runs that were deleted are
    removed. Raises RunError.
    """
    folder = run.path.parent / FOLDER
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        for link in folder.glob("*.json"):
            if link.is_symlink() and not link.parent.joinpath(link.readlink()).parent.is_dir():
                link.unlink(missing_ok=True)
        link = folder / f"{run.path.name}.json"
        target = Path("..") / run.path.name / run.targets_path.name
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        return _token(folder / TOKEN_FILE)


def _token(path: Path) -> str:
    if not path.exists():
        # Of two runs that start together one writes the token, and both read it.
        made = path.with_name(f".{path.name}.{os.getpid()}")
        write_atomic(made, secrets.token_urlsafe(24), mode=0o600)
        try:
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise RunError(f"{path} is empty; delete it, and the next run writes a new token there")
    return token
