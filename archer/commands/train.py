"""`archer train` and `archer demo`: start or resume a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archer import signals
from archer.commands.arguments import Config, Overrides
from archer.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from archer.config.models import RunConfig
    from archer.driver.run_folder import RunFolder


def demo(overrides: Overrides = None) -> None:
    """Train a small model from scratch on Twenty Questions, in minutes on two cores. Replaces an earlier demo."""
    train("demo", overrides, overwrite=True)


def train(
    config: Config = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Resume the run in this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete a run of the same name first.")] = False,
) -> None:
    """Train a policy, or resume an interrupted run."""
    from archer.config.loading import load_config
    from archer.driver.run_folder import RunFolder

    if resume is None:
        if config is None:
            raise ConfigError("archer train needs a configuration (archer train CONFIG) or --resume runs/NAME")
        resolved = load_config(config, overrides or [])
        with RunFolder.create(Path(resolved.runs_dir), resolved.name, overwrite=overwrite) as folder:
            _run(resolved, folder, resume=False)
        return
    if overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: the first keeps the run, the second deletes it")
    with RunFolder.open(resume) as folder:
        first = [config] if config else []  # with --resume every positional argument is an override
        _run(load_config(folder.config_path, first + (overrides or [])), folder, resume=True)


def _run(config: RunConfig, folder: RunFolder, *, resume: bool) -> None:
    from archer.config.loading import dump_config
    from archer.driver.run_folder import latest_checkpoint

    if not resume:
        folder.write(folder.config_path, dump_config(config))
    signals.ends_with(f"`archer train --resume {folder.path}` resumes it")
    try:
        if config.mode == "inline":
            from archer.driver.inline import run_inline  # imports torch, but not Ray

            run_inline(config, folder, resume=resume)
        else:
            from archer.run import run  # imports torch and Ray

            run(config, folder, resume=resume)
    except KeyboardInterrupt:
        checkpoint = latest_checkpoint(folder.path)
        start = checkpoint.name if checkpoint else "the beginning, because it has no checkpoint yet"
        sentence = f"interrupted; `archer train --resume {folder.path}` resumes from {start}"
        raise Interrupted(sentence, signals.exit_status()) from None
