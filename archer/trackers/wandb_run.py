"""Weights & Biases, online after `wandb login`, or offline with WANDB_MODE=offline; the package wandb, by the user."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from archer.trackers.base import PROJECT, Moment, run_id


class WandbTracker:
    """Writes one run of the project `WANDB_PROJECT`, by default `archer`, and its files to `wandb/` of the run folder.

    Each entry has `cycle` and `episodes`, so that both can be the x axis; the default is `cycle`.
    """

    def __init__(self, folder: Path, at: Moment) -> None:
        # Read at import: reports of the client's own errors are the user's choice.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # late: only a run with this tracker needs it

        self._wandb = wandb
        settings = wandb.setup().settings
        if settings.mode in ("online", "shared") and not settings.api_key:  # `init` would ask for it in the terminal
            raise PermissionError("no API key; run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=run_id(folder, "wandb", lambda: uuid4().hex),
            resume="allow",
            dir=str(folder),
            # Nothing that the run does not hand over: no output of the terminal, no code, no state of a repository.
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        self._run.define_metric("cycle")
        self._run.define_metric("*", step_metric="cycle")

    def settings(self, text: str) -> None:
        self._run.config.update(yaml.safe_load(text), allow_val_change=True)

    def scalars(self, values: Mapping[str, float], at: Moment) -> None:
        self._run.log({**values, **at._asdict()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: Moment) -> None:
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        self._run.log({name: table, **at._asdict()})

    def text(self, name: str, text: str, at: Moment) -> None:
        # Text of a policy is no markup.
        self._run.log({name: self._wandb.Html(f"<pre>{html.escape(text)}</pre>", inject=False), **at._asdict()})

    def rewind(self, at: Moment) -> None:
        """Do nothing: a client cannot delete points. A cycle that is repeated has a second point."""

    def close(self) -> None:
        self._run.finish()
        self._wandb.teardown()  # ends the client's process
