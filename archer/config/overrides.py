"""Settings from the command line: `key=value`, with dots in the key and YAML in the value."""

import re
from typing import Any

from archer.config.yaml_values import describe, parse_yaml
from archer.errors import ConfigError


def parse_override(text: str) -> tuple[str, Any]:
    """Return ("a.b", 1) for `a.b=1`. Raises ConfigError if the text has another form."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError(f"override {text!r} is not of the form key=value, such as learner.critic.lr=1e-4")
    if not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
        raise ConfigError(f"override {text!r} has the key {key!r}; a key is names joined by dots, such as env.id")
    return key, parse_yaml(value, fault=f"override {text!r}: the value is not YAML")


def set_key(tree: dict[str, Any], key: str, value: Any, text: str) -> None:
    """Set a dotted key in a tree of mappings; a mapping replaces the earlier value as a whole.

    Raises ConfigError, which quotes the override `text`, if a part of the key names a value without keys.
    """
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents, start=1):
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            path = ".".join(parents[:depth])
            raise ConfigError(f"override {text!r}: `{path}` is {describe(node)}, which has no keys below it")
    node[last] = value
