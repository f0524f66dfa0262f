"""Every registered environment that is installed, played with random strings. New environments are included
automatically.
"""

from __future__ import annotations

import pytest
from detective_cases import STORY
from fuzz import fuzz

import envs
from bench.fuzz_envs import familiar
from envs import EnvArgumentError, EnvSpec, missing_modules

ARGUMENTS: dict[str, dict] = {
    "detective": {"story": str(STORY), "valid_actions": False},
    "gymnasium": {"gym_id": "FrozenLake-v1"},
}
"""Arguments of environments that cannot be made with their defaults."""
ELSEWHERE = {
    "miniwob": "needs a browser, which test_envs_miniwob starts",
    "openenv": "needs a running server, which test_envs_openenv has",
    "textworld": "makes games for seconds, and is fuzzed on one small game in test_envs_textworld",
    "webshop_http": "needs a running server, which test_envs_webshop_http has",
}
ACTIONS = 5_000
"""Actions per environment. Each is played twice, which makes 10,000."""
ACTIONS_OF_A_CHILD = 500
"""Fewer actions, because a turn in a child process takes a hundred times as long."""


@pytest.mark.parametrize("spec", envs.specs(), ids=lambda spec: spec.id)
def test_every_string_is_an_action(spec: EnvSpec):
    if spec.id in ELSEWHERE:
        pytest.skip(f"{spec.id} {ELSEWHERE[spec.id]}")
    if spec.extra is not None and missing_modules(spec.extra):
        pytest.skip(f"{spec.id} needs the extra {spec.extra}, which isn't installed: make install")
    kwargs = ARGUMENTS.get(spec.id, {})
    try:
        words = familiar(spec.id, kwargs)
    except EnvArgumentError as error:
        pytest.skip(str(error))
    fuzz(spec.id, words, actions=ACTIONS_OF_A_CHILD if spec.isolation == "process" else ACTIONS, **kwargs)
