"""Text environments, the tools they are built with, and their scripted demonstrators.

An environment exchanges text: `reset` and `step` return an observation, a reward, two end flags and an info dictionary.
Tokens, models and Ray belong to other rooms; this room imports none of them.

Start with `base`, which defines the protocol `TextEnv`, then `registry`, whose `make` returns an environment by its id
under a time limit. `builtin` lists the environments. `demonstrations` plays scripted episodes, `exact` solves small
environments. Each environment is a module (`key_door`, `maze`) or a package. `toolkit` holds what several environments
share, `hosting` runs environments on threads and in child processes, `adapters` connects environments of other
packages, and `oracles` answers the questions of guessing games.

The names below are imported from their modules at first use.
"""

# ruff: noqa: F401  # the imports below are for type checkers; `_MODULES` serves the same names at run time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.base import (
        INVALID_ACTION,
        PRIVILEGED,
        RESERVED_INFO_KEYS,
        SUCCESS,
        TASK_ID,
        TIMED_OUT,
        VALID_ACTIONS,
        EnvSpec,
        Info,
        Isolation,
        Message,
        Observation,
        Step,
        TextEnv,
        privileged_text,
        unwrapped,
    )
    from envs.demonstrations import (
        Demonstration,
        Demonstrator,
        SkillRow,
        demonstrate,
        make_demonstrator,
        returns_by_skill,
    )
    from envs.errors import (
        EnvArgumentError,
        EnvError,
        EnvFailedError,
        EnvStateError,
        EnvTimeoutError,
        MissingExtraError,
        UnknownEnvError,
    )
    from envs.exact import ExactValues, Solvable, exact_values
    from envs.extras import missing_modules
    from envs.hosting.async_env import AsyncEnv
    from envs.hosting.child_process import ProcessEnv
    from envs.registry import check, make, register, spec, specs
    from envs.time_limit import TimeLimit
    from envs.toolkit.mixed_demonstrator import MixedDemonstrator

_NAMES = {
    "envs.base": (
        "INVALID_ACTION PRIVILEGED RESERVED_INFO_KEYS SUCCESS TASK_ID TIMED_OUT VALID_ACTIONS EnvSpec Info Isolation "
        "Message Observation Step TextEnv privileged_text unwrapped"
    ),
    "envs.demonstrations": "Demonstration Demonstrator SkillRow demonstrate make_demonstrator returns_by_skill",
    "envs.errors": (
        "EnvArgumentError EnvError EnvFailedError EnvStateError EnvTimeoutError MissingExtraError UnknownEnvError"
    ),
    "envs.exact": "ExactValues Solvable exact_values",
    "envs.extras": "missing_modules",
    "envs.hosting.async_env": "AsyncEnv",
    "envs.hosting.child_process": "ProcessEnv",
    "envs.registry": "check make register spec specs",
    "envs.time_limit": "TimeLimit",
    "envs.toolkit.mixed_demonstrator": "MixedDemonstrator",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
