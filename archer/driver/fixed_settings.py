"""The settings that a checkpoint fixes: it records them in `fixed.json`, and a resumed run may not change them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archer.config.loading import load_config, looks_like_folder
from archer.config.models import RunConfig
from archer.config.yaml_values import describe
from archer.driver.value_support import with_support
from archer.errors import ConfigError
from learner.engine.checkpoint_folders import read_fixed

_ALWAYS = {
    "algorithm": "its state is that of this algorithm",
    "env.id": "its replay has the episodes of this environment",
    "model.path": "its policy and tokenizer come from this model",
    "model.build": "its policy and tokenizer have this shape",
    "learner.ranks": "each rank has its own random streams and its share of the optimizer",
    "learner.zero_stage": "the optimizer's state is divided in this way",
    "learner.lora": "its adapters have this shape and this base",
}
_CRITIC = dict.fromkeys(
    (
        f"learner.critic.{name}"
        for name in (
            "backbone",
            "reads",
            "build",
            "backbones",
            "heads",
            "head_hidden_size",
            "value",
            "value_unit",
            "loss",
            "support",
            "bins",
        )
    ),
    "its critic was built and trained with this value",
)
_OF_ALGORITHM = {
    "archer": dict.fromkeys(
        ("learner.actor.token_baseline", "learner.actor.baseline_hidden_size"),
        "its token-level baseline was built with this value",
    ),
    "ppo": {"learner.ppo.value_hidden_size": "its value function was built with this value"},
}


def fixed_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a checkpoint of this run fixes: plain values by the path of the field."""
    tree = config.model_dump(mode="json")
    tree["learner"] = with_support(config).model_dump(mode="json")
    return {path: _value(tree, path) for path in _reasons(config)}


def require_fixed(config: RunConfig, run: Path, checkpoint: Path | None) -> None:
    """Raise ConfigError with a sentence for each setting that differs from what the checkpoint to resume from fixes.

    A checkpoint of an earlier version has no record; the configuration of the run folder stands for it.
    """
    if checkpoint is None:
        return
    recorded = read_fixed(checkpoint)
    if recorded is None:
        recorded = fixed_settings(load_config(run / "config.yaml", check=False))
    lines = list(_differences(recorded, fixed_settings(config), _reasons(config), checkpoint))
    if lines:
        raise ConfigError("\n".join(lines))


def _differences(
    recorded: dict[str, Any], asked: dict[str, Any], reasons: dict[str, str], checkpoint: Path
) -> Iterator[str]:
    for path, value in asked.items():
        if path not in recorded or value == recorded[path] or (path == "model.path" and _moved(recorded[path])):
            continue
        yield (
            f"`{path}` is {_text(value)}, and {checkpoint} fixes it at {_text(recorded[path])}: {reasons[path]}; "
            "resume without this change, or start a new run with name=..."
        )


def _moved(path: str | None) -> bool:
    """Return whether a model's folder is gone, so that another path may name the same model."""
    return path is not None and looks_like_folder(path) and not Path(path).is_dir()


def _reasons(config: RunConfig) -> dict[str, str]:
    critic = _CRITIC if config.algorithm_config.has_critic else {}
    return _ALWAYS | critic | _OF_ALGORITHM.get(config.algorithm, {})


def _value(tree: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, list) else describe(value)
