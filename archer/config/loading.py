"""Read a YAML file and `key=value` overrides into a checked `RunConfig`; each mistake becomes a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archer.config.mistakes import mistakes, truth_values
from archer.config.models import RunConfig
from archer.config.overrides import parse_override, set_key
from archer.config.presets import find_config
from archer.config.yaml_values import dump_yaml, read_yaml
from archer.errors import ConfigError
from archer.trackers.base import require_installed


def load_config(path: str | Path, overrides: Sequence[str] = (), *, check: bool = True) -> RunConfig:
    """Read a file (or a preset by name), apply `key=value` overrides, and validate the result.

    check: also check what depends on this machine: folders of models, the environment.
    Raises ConfigError with one sentence per mistake.
    """
    file = find_config(path)
    tree = read_yaml(file)
    tree.setdefault("name", file.stem)
    return config_from_tree(tree, overrides, source=str(file), check=check)


def config_from_tree(
    tree: dict[str, Any], overrides: Sequence[str] = (), *, source: str, check: bool = True
) -> RunConfig:
    """Do the same as `load_config` with plain values; `source` names their origin in errors."""
    origins: dict[str, str] = {}
    for text in overrides:
        key, value = parse_override(text)
        set_key(tree, key, value, text)
        origins[key] = f"override {text!r}"
    found = list(truth_values(tree))
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        found += mistakes(error)
    if found:
        lines = []
        for path, sentence in found:
            overridden = (text for key, text in origins.items() if f"{path}.".startswith(f"{key}."))
            lines.append(f"{sentence} (in {next(overridden, source)})")
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    if check:
        _check_machine(config)
    return config


def dump_config(config: RunConfig) -> str:
    """Return the configuration as YAML, which `load_config` reads back to the same values."""
    return dump_yaml(config.model_dump(mode="json"))


def looks_like_folder(path: str) -> bool:
    """Return whether a model's path is a folder, not a name on the Hugging Face hub (`name` or `owner/name`)."""
    return path.startswith((".", "/", "~", "\\")) or path.count("/") > 1 or Path(path).is_dir()


def _check_machine(config: RunConfig) -> None:
    """Check what only this machine knows: trackers, the folders of model and adapter, the environment.

    Raises ConfigError.
    """
    require_installed(config.tracking)
    path = config.model.path
    if path is not None and looks_like_folder(path) and not Path(path).expanduser().is_dir():
        raise ConfigError(
            f"`model.path` is {path!r}, and there is no such folder; give the folder of a Hugging Face model "
            "(with config.json), or a name such as gpt2"
        )
    adapter = config.learner.lora.adapter if config.learner.lora is not None else None
    if adapter is not None and not (Path(adapter).expanduser() / "adapter_config.json").is_file():
        raise ConfigError(
            f"`learner.lora.adapter` is {adapter!r}, which is not the folder of a peft adapter (it has no "
            "adapter_config.json); give the folder of an adapter, such as adapter/ of a checkpoint"
        )
    from envs import EnvError, MissingExtraError, UnknownEnvError, check  # imports every environment

    try:
        check(config.env.id, **config.env.kwargs)
    except (MissingExtraError, UnknownEnvError) as error:
        raise ConfigError(f"`env.id`: {error}") from None
    except EnvError as error:
        raise ConfigError(f"`env.kwargs`: {error}") from None
