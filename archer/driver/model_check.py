"""The checks of a model that a run makes before it starts, each with its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from archer.config.models import RunConfig
from archer.driver.initial_policy import start_model
from archer.driver.passes import prove_passes
from archer.errors import ConfigError


@dataclass(frozen=True)
class Check:
    """One check: what was checked, whether it passed, and its result or what to do."""

    name: str
    passed: bool
    detail: str


def check_model(config: RunConfig, folder: Path) -> list[Check]:
    """Check the model of `config`, made in `folder` if the run makes it; the first failure is the last check."""
    try:
        model = start_model(config, folder / "model")
    except ConfigError as error:
        return [Check("files, tokenizer, embedding", False, str(error))]
    found = [Check("files, tokenizer, embedding", True, "fit together")]
    try:
        passes = prove_passes(config, model)
    except ConfigError as error:
        return [*found, Check("passes", False, str(error))]
    for role, proof in passes.proofs.items():
        found.append(Check(f"passes, {role}", True, proof.line()))
    return found


def print_checks(checks: list[Check], model: str, console: Console | None = None) -> None:
    """Print the checks as a table."""
    table = Table(
        "check", "", Column("result", overflow="fold"), title=f"check of {model}", title_justify="left", box=None
    )
    for check in checks:
        table.add_row(check.name, "ok" if check.passed else "failed", check.detail)
    (console or Console()).print(table)
