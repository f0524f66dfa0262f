"""The arguments of an environment on the command line: `--set env.kwargs.NAME=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import envs
from archer.config.loading import parse_override
from archer.errors import ConfigError

PREFIX = "env.kwargs."


def env_kwargs(env: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The arguments of the environment that `--set env.kwargs.NAME=VALUE` gives, checked. Raises ConfigError."""
    kwargs: dict[str, Any] = {}
    for text in overrides:
        key, value = parse_override(text)
        name, *below = key.removeprefix(PREFIX).split(".")
        if not key.startswith(PREFIX):
            raise ConfigError(f"--set {text!r} changes nothing here; what can be set is env.kwargs.NAME=VALUE")
        if not below:
            kwargs[name] = value
            continue
        node = kwargs.setdefault(name, {})
        for part in below[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict):
            raise ConfigError(f"--set {text!r}: `{PREFIX}{name}` has a value already, which has no keys below it")
        node[below[-1]] = value
    try:
        envs.check(env, **kwargs)
    except envs.UnknownEnvError as error:
        raise ConfigError(str(error)) from None
    except envs.EnvArgumentError as error:
        raise ConfigError(f"--set: {error}") from None
    return kwargs
