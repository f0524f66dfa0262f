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
from buffer.log.folders import MANIFEST, read_manifest
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
            "q_at",
            "warmup_targets",
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


_NOTED = {
    "env.kwargs": "replay has episodes of the earlier arguments, from which the critic goes on learning",
}
"""Settings that may change, because they may be as harmless as an address, but not without a word."""


def fixed_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a checkpoint of this run records: plain values by the path of the field."""
    tree = config.model_dump(mode="json")
    tree["learner"] = with_support(config).model_dump(mode="json")
    return {path: _value(tree, path) for path in _reasons(config) | _NOTED}


def require_fixed(config: RunConfig, run: Path, checkpoint: Path | None) -> list[str]:
    """Raise ConfigError with a sentence for each setting that differs from what the checkpoint to resume from fixes.

    Returns a sentence for each setting that has changed and may. A checkpoint of an earlier version has no record; the
    configuration of the run folder stands for it.
    """
    if checkpoint is None:
        return []
    recorded = read_fixed(checkpoint)
    if recorded is None:
        recorded = fixed_settings(load_config(run / "config.yaml", check=False))
    asked = fixed_settings(config)
    lines = [*_differences(recorded, asked, _reasons(config), checkpoint), *_fewer_shards(config, checkpoint)]
    if lines:
        raise ConfigError("\n".join(lines))
    return [
        f"`{path}` was {_text(recorded[path])} and is {_text(asked[path])} from now on: {reason}"
        for path, reason in _NOTED.items()
        if path in recorded and recorded[path] != asked[path]
    ]


def _fewer_shards(config: RunConfig, checkpoint: Path) -> Iterator[str]:
    """Yield a sentence if the replay would have fewer shards than the checkpoint."""
    if config.mode == "inline" or not (checkpoint / "replay" / MANIFEST).exists():
        return
    shards = read_manifest(checkpoint / "replay").shards
    if config.replay.shards < shards:
        yield (
            f"`replay.shards` is {config.replay.shards}, and {checkpoint} has {shards}: their number may grow, but "
            f"fewer shards would leave the rows of the others behind; set replay.shards={shards} or more"
        )


def _differences(
    recorded: dict[str, Any], asked: dict[str, Any], reasons: dict[str, str], checkpoint: Path
) -> Iterator[str]:
    for path in reasons:
        value = asked[path]
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
