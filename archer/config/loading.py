"""From a YAML file and `key=value` overrides to a checked RunConfig; each mistake becomes a sentence.

Three steps: parse (syntax errors carry their line), look for unknown keys (each is answered with the nearest valid
one), validate (each value out of range is answered with what is allowed). `check_world` adds what only the machine
can tell: does the model folder exist, is there such an environment.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from archer.config.fields import allowed_text, describe_value, unknown_keys
from archer.config.models import RunConfig
from archer.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two repairs: `1e-4` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


# The resolver tables are class attributes shared with SafeLoader, so they are copied before the change.
_Loader.yaml_implicit_resolvers = {
    first: list(pairs) for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def preset_directories() -> list[Path]:
    """Folders where presets are looked for: here, beside the rooms (a checkout), inside the package (a wheel)."""
    package = Path(__file__).resolve().parents[1]
    candidates = [Path("configs"), package.parent / "configs", package / "presets"]
    return [folder for folder in candidates if folder.is_dir()]


def presets() -> dict[str, Path]:
    """Preset name to its file; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in preset_directories():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def find_config(name: str | Path) -> Path:
    """File behind a path or a preset's name; ConfigError that lists the presets where there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    available = presets()
    if path.parent == Path(".") and path.name.removesuffix(".yaml") in available:
        return available[path.name.removesuffix(".yaml")]
    if path.parent.name == "configs" and path.stem in available and path.parent == Path("configs"):
        return available[path.stem]
    what = "is a folder, not a configuration file" if path.is_dir() else "does not exist"
    names = ", ".join(sorted(available)) or "none found"
    raise ConfigError(f"configuration {str(name)!r} {what}; give the path of a YAML file, or a preset: {names}")


def load_config(path: str | Path, overrides: Sequence[str] = (), *, check: bool = True) -> RunConfig:
    """Read `path` (or a preset's name), lay `key=value` overrides over it, and check the whole.

    `check=False` leaves out what depends on this machine (see check_world). Raises ConfigError, one sentence per
    mistake.
    """
    file = find_config(path)
    tree = _parse_file(file)
    tree.setdefault("name", file.stem)
    return config_from_tree(tree, overrides, source=str(file), check=check)


def config_from_tree(
    tree: dict[str, Any], overrides: Sequence[str] = (), *, source: str, check: bool = True
) -> RunConfig:
    """As load_config, from plain values instead of a file; `source` says in errors where they came from."""
    origins: dict[str, str] = {}
    for text in overrides:
        key, value = parse_override(text)
        _set(tree, key, value, text)
        origins[key] = f"override {text!r}"
    config = build_config(tree, source=source, origins=origins)
    if check:
        check_world(config)
    return config


def build_config(tree: dict[str, Any], *, source: str, origins: dict[str, str] | None = None) -> RunConfig:
    """Validate a tree of plain values; `source` and `origins` (dotted key to override) say where a value came from."""
    origins = origins or {}

    def where(path: str) -> str:
        return next((text for key, text in origins.items() if path == key or path.startswith(key + ".")), source)

    problems = [f"{sentence} (in {where(path)})" for path, sentence in unknown_keys(tree, RunConfig)]
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        sentences = []
        for item in error.errors(include_url=False):
            path = ".".join(str(part) for part in item["loc"])
            sentences.append(f"{_sentence(path, item)} (in {where(path)})")
        raise ConfigError("\n".join(sentences)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=1` to ("a.b", 1); the value is read as YAML. Raises ConfigError where the form is wrong."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError(f"override {text!r} is not of the form key=value, such as learner.critic.lr=1e-4")
    if not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
        raise ConfigError(f"override {text!r} has {key!r} for a key; a key is names joined by dots, such as env.id")
    try:
        return key, yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"override {text!r}: the value is not YAML: {_yaml_problem(error)}") from None


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that load_config reads back to the same values."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def check_world(config: RunConfig) -> None:
    """What only this machine can tell: the folders of model and adapter, the environment. Raises ConfigError."""
    path = config.model.path
    if path is not None and looks_like_folder(path) and not Path(path).expanduser().is_dir():
        raise ConfigError(
            f"`model.path` is {path!r}, and there is no such folder; give the folder of a Hugging Face model "
            "(with config.json), or a name such as gpt2"
        )
    adapter = config.learner.lora.adapter if config.learner.lora is not None else None
    if adapter is not None and not (Path(adapter).expanduser() / "adapter_config.json").is_file():
        raise ConfigError(
            f"`learner.lora.adapter` is {adapter!r}, and there is no peft adapter (no adapter_config.json); give the "
            "folder of one, such as the adapter/ of a checkpoint"
        )
    # Late: reading a file should not need the environments.
    from envs import EnvError, MissingExtraError, UnknownEnvError, check

    try:
        check(config.env.id, **config.env.kwargs)
    except (MissingExtraError, UnknownEnvError) as error:
        raise ConfigError(f"`env.id`: {error}") from None
    except EnvError as error:
        raise ConfigError(f"`env.kwargs`: {error}") from None


def looks_like_folder(path: str) -> bool:
    """Whether a model's path means a folder rather than a name on the Hugging Face hub (`name` or `owner/name`)."""
    return path.startswith((".", "/", "~", "\\")) or path.count("/") > 1 or Path(path).is_dir()


def _parse_file(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {_yaml_problem(error)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-45, a thousand brackets
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} must hold keys and values at its top, but holds {describe_value(tree)}")
    return tree


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else problem


def _set(tree: dict[str, Any], key: str, value: Any, text: str) -> None:
    """Lay one override over the tree; a mapping replaces what was there as a whole."""
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            at = ".".join(parents[: depth + 1])
            raise ConfigError(f"override {text!r}: `{at}` is {describe_value(child)}, which has no keys below it")
        node = child
    node[last] = value


def _sentence(path: str, item: Any) -> str:
    """One pydantic error as a sentence with the field, the value and what is allowed."""
    kind = item["type"]
    if kind == "missing":
        return f"`{path}` is missing: {allowed_text(RunConfig, path)}"
    if kind == "value_error":
        text = str(item["ctx"]["error"])
        return f"`{path}` {text}" if path else text
    return f"`{path}` is {describe_value(item['input'])}: {allowed_text(RunConfig, path) or item['msg']}"
