"""How the policy of a run calls the tools of its environment, decided as the rollout workers decide it."""

from __future__ import annotations

from typing import NamedTuple

from actors.errors import RenderError
from archer.config.models import RunConfig
from archer.errors import ConfigError
from envs.registry import native_calls, tools


class Calls(NamedTuple):
    """The form of the calls.

    native: whether the policy writes them in the format of its chat template.
    sentence: the form and what decided it, for people; empty if the environment declares no tools.
    """

    native: bool
    sentence: str


def calls_of(config: RunConfig, model: str) -> Calls:
    """Return how `model` calls the tools of the run's environment. Raises ConfigError if it cannot as configured."""
    declared = tools(config.env.id, config.env.kwargs)
    if not declared and config.rollout.tools != "native" and config.rollout.tool_parser == "auto":
        return Calls(False, "")
    from transformers import AutoTokenizer  # late: takes seconds to import

    from actors.rendering.tool_choice import choose_calls

    try:
        choice = choose_calls(config.rollout, AutoTokenizer.from_pretrained(model), declared)
    except RenderError as error:
        raise ConfigError(str(error)) from error
    form = "lines of JSON" if choice.native is None else "native"
    return Calls(choice.native is not None, f"tool calls: {form}, because {choice.reason}")


def for_native_calls(config: RunConfig) -> RunConfig:
    """Return the configuration with the environment's arguments for a policy that calls tools natively."""
    kwargs = native_calls(config.env.id, config.env.kwargs)
    return config.model_copy(update={"env": config.env.model_copy(update={"kwargs": kwargs})})
