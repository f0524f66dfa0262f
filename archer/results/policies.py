"""The policies that `archer eval` plays: the runs and models of its arguments, each with its settings, all on one task.

All checks of the arguments are here, before Ray or an engine starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archer.config.loading import config_from_tree, load_config, looks_like_folder
from archer.config.models import RunConfig
from archer.config.overrides import parse_override
from archer.config.sections import EnvConfig
from archer.driver.run_folder import latest_checkpoint
from archer.errors import ConfigError
from learner.engine.checkpoint_folders import CRITIC_FILE, best_policy, checkpoint_folders

SETTINGS = ("rollout", "env.kwargs", "cluster", "seed", "learner.timeout_s")
"""The parts of the configuration that an evaluation uses."""


@dataclass(frozen=True)
class _Found:
    """A resolved argument of the command line. Its name in tables is the end of `parts`, the parts of its path."""

    source: str  # the argument
    model: str  # folder or hub name
    parts: tuple[str, ...]
    run: RunConfig | None = None  # the configuration that trained it
    critic: Path | None = None  # weights of the critic that chooses among its actions, if one does


@dataclass(frozen=True, kw_only=True)
class Policy(_Found):
    """A policy to evaluate, with its name in tables and the settings of its evaluation."""

    name: str
    config: RunConfig


def choose_policies(
    sources: Sequence[str], *, env: str | None = None, overrides: Sequence[str] = (), last: bool = False
) -> list[Policy]:
    """Return the policies of runs, checkpoints and models, with distinct names.

    The policy of a run is that of its best evaluation, or with `last`, or without an evaluation, that of its newest
    checkpoint. A run plays with its own configuration, and unless `env` is given, in its own environment; a model plays
    with the defaults, in the environment of the first run. `overrides` apply to all. Raises ConfigError if an argument
    is none of these, if two are the same policy, or if the policies would not play the same task.
    """
    _check_overrides(overrides)
    found = [_find(source, last=last) for source in sources]
    seen: dict[str, str] = {}
    for one in found:
        if one.model in seen:
            raise ConfigError(f"{seen[one.model]!r} and {one.source!r} are the same policy; give each one once")
        seen[one.model] = one.source
    # The arguments of a run's environment are not valid for another environment.
    own = [one.run.env if one.run is not None and env in (None, one.run.env.id) else None for one in found]
    shared = next((task for task in own if task is not None), None)
    if shared is None:
        if env is None:
            raise ConfigError(
                f"{found[0].source!r} is a model, not a run, so archer eval needs --env ID (see `archer envs`)"
            )
        shared = EnvConfig(id=env)
    policies = []
    for name, one, task in zip(_names([one.parts for one in found]), found, own, strict=True):
        config = _settings(one, task or shared, overrides)
        policies.append(Policy(**vars(one), name=name, config=config))
        _check_alike(policies[0], policies[-1])
    return policies


def check_models(policies: Sequence[Policy]) -> None:
    """Load the configuration and the tokenizer of every model. Raises ConfigError if an engine could not use one."""
    from transformers import AutoTokenizer  # late: brings torch

    from actors.errors import RenderError
    from actors.rendering.factory import make_renderer
    from archer.driver.model import resolve_model
    from envs.registry import tools

    for policy in policies:
        rollout = policy.config.rollout
        try:
            model, limit = resolve_model(policy.config.model)
            make_renderer(
                rollout, AutoTokenizer.from_pretrained(model), tools(policy.config.env.id, policy.config.env.kwargs)
            )
        except (ConfigError, RenderError) as error:
            raise ConfigError(f"{policy.source!r} cannot be played: {error}") from error
        window = rollout.engine.max_model_len or limit
        if window is not None and rollout.sampling.longest >= window:
            raise ConfigError(
                f"{policy.source!r} has a window of {window} tokens, and {rollout.sampling.described()}, "
                "which leaves no room for a prompt; lower it with --set"
            )
        if window is not None and limit is not None and window > limit:
            raise ConfigError(
                f"{policy.source!r} has a window of {limit} tokens, less than `rollout.engine.max_model_len`, "
                f"{window}; lower it with --set"
            )


def _check_overrides(overrides: Sequence[str]) -> None:
    for text in overrides:
        key, _ = parse_override(text)
        if key in ("env", "env.id"):
            raise ConfigError(f"--set {text!r}: choose the environment of an evaluation with --env ID")
        if not any(key == section or key.startswith(section + ".") for section in SETTINGS):
            raise ConfigError(
                f"--set {text!r} has no effect on an evaluation; these settings have: {', '.join(SETTINGS)}"
            )


def _find(source: str, *, last: bool) -> _Found:
    """Resolve one argument. Raises ConfigError."""
    path = Path(source).expanduser()
    if (path / "config.yaml").is_file():
        best = None if last else best_policy(path)
        checkpoint = latest_checkpoint(path) if best is None else best[0]
        if checkpoint is None:
            raise ConfigError(
                f"the run {source} has no checkpoint yet, so there is no policy to evaluate; wait for the first"
            )
        return _of_run(source, path.resolve(), checkpoint.resolve(), path.resolve().parts)
    checkpoint = path.resolve().parent if path.name == "policy" else path.resolve()
    run = checkpoint.parent.parent
    known = [folder for kind in ("checkpoints", "best") for folder in checkpoint_folders(run / kind)]
    if checkpoint in known and (run / "config.yaml").is_file():
        shown = checkpoint.name if checkpoint.parent.name == "checkpoints" else f"best/{checkpoint.name}"
        return _of_run(source, run, checkpoint, (*run.parts[:-1], f"{run.name}/{shown}"))
    if (path / "config.json").is_file():
        return _Found(source, str(path.resolve()), path.resolve().parts)
    if (path / "adapter_config.json").is_file():
        raise ConfigError(
            f"{source!r} is an adapter without its base; give the run or the checkpoint that contains it, whose "
            "policy/ folder has the merged model"
        )
    if path.is_dir():
        raise ConfigError(
            f"{source!r} is neither a run (it has no config.yaml) nor a Hugging Face model (it has no config.json)"
        )
    if path.exists():
        raise ConfigError(f"{source!r} is a file; give a run folder, or the folder or hub name of a model")
    if "=" in source:
        raise ConfigError(f"{source!r} is neither a run nor a model; give a setting with --set {source}")
    beside = sorted(config.parent.name for config in path.parent.glob("*/config.yaml")) if "/" in source else []
    if beside:
        raise ConfigError(f"there is no run {source!r}; {path.parent} has {', '.join(beside)}")
    if looks_like_folder(source):
        raise ConfigError(
            f"there is no folder {source!r}; give a run folder such as runs/demo, the folder of a Hugging Face model "
            "(with config.json), or a hub name such as gpt2"
        )
    return _Found(source, source, path.parts)


def _of_run(source: str, run: Path, checkpoint: Path, parts: tuple[str, ...]) -> _Found:
    if not (checkpoint / "policy" / "config.json").is_file():
        raise ConfigError(f"the checkpoint {checkpoint} has no policy (policy/config.json is missing)")
    # The run's other inputs (its initial model, its data) may no longer exist.
    config = load_config(run / "config.yaml", check=False)
    critic = checkpoint / CRITIC_FILE if config.algorithm_config.proposals() else None
    if critic is not None and not critic.is_file():
        raise ConfigError(
            f"{source!r} is a run of {config.algorithm}, whose critic chooses the actions, and {critic} is "
            "missing; without it only the clone would play"
        )
    return _Found(source, str(checkpoint / "policy"), parts, config, critic)


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the end of each path (given by its parts), with as many parts as make the names distinct."""
    shown = [1] * len(paths)
    while True:
        names = ["/".join(parts[-length:]) for parts, length in zip(paths, shown, strict=True)]
        alike = [i for i, name in enumerate(names) if names.count(name) > 1 and shown[i] < len(paths[i])]
        if not alike:
            return names
        for i in alike:
            shown[i] += 1


def _settings(found: _Found, env: EnvConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the settings of an evaluation, without the run's settings for GPUs of the learner, replay and so on."""
    tree: dict[str, Any] = {"model": {"path": found.model}, "env": env.model_dump()}
    if found.run is not None:
        run = found.run.model_dump(mode="json", include={"seed", "rollout", "cluster"})
        tree |= {**run, "learner": {"timeout_s": found.run.learner.timeout_s}}
    # An evaluation has no learner, and reserves resources for its engines only.
    tree.setdefault("learner", {})["cpus_per_rank"] = 0
    return config_from_tree(tree, overrides, source=f"the evaluation of {found.source}")


def _check_alike(first: Policy, other: Policy) -> None:
    """Raise ConfigError if two policies differ in the task, which makes them not comparable, or in the Ray cluster."""
    one, two = first.config, other.config
    for verb, mine, theirs, setting in (
        ("plays", one.env.id, two.env.id, "--env ID"),
        (f"plays {one.env.id} with the arguments", one.env.kwargs, two.env.kwargs, "--set 'env.kwargs={...}'"),
        ("names the Ray cluster", one.cluster.address, two.cluster.address, "--set cluster.address=..."),
    ):
        if mine != theirs:
            raise ConfigError(
                f"{first.source} {verb} {mine} and {other.source} {verb} {theirs}; policies are comparable only on one "
                f"task and one cluster: choose the same for all with {setting}"
            )
