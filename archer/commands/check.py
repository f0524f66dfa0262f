"""`archer check`: prove a model without a run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archer.commands.arguments import Overrides
from archer.errors import ConfigError, RunError

if TYPE_CHECKING:
    from archer.config.models import RunConfig

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or Hugging Face name, YAML file or preset.")]


def check(model: Model, overrides: Overrides = None) -> None:
    """Prove that the learner computes what a model computes, as a run does before it starts."""
    from archer.driver.model_check import check_model, print_checks

    with tempfile.TemporaryDirectory(prefix="archer-check-") as folder:
        config = _config(model, overrides or [])
        checks = check_model(config, Path(folder))
    print_checks(checks, model)
    if failed := next((found for found in checks if not found.passed), None):
        raise RunError(f"{model}, check of {failed.name}: {failed.detail}")


def _config(model: str, overrides: list[str]) -> RunConfig:
    """Return the configuration that trains a model, or the one that `model` names."""
    from archer.config.loading import config_from_tree, load_config, looks_like_folder
    from archer.config.presets import presets

    if not looks_like_folder(model) and (model in presets() or model.endswith((".yaml", ".yml"))):
        return load_config(model, overrides)
    if model.endswith((".yaml", ".yml")) and Path(model).is_file():
        return load_config(model, overrides)
    tree = {
        "name": "check",
        "model": {"path": model},
        "env": {"id": "key_door"},
        "learner": {"clone": {"steps": 0}},
    }
    if looks_like_folder(model) and not Path(model).expanduser().is_dir():
        raise ConfigError(f"{model} is no folder; give a folder with a Hugging Face model, or a name on the hub")
    return config_from_tree(tree, overrides, source="the command line", check=False)
