"""Exact action values in the policy's tokens, on the episodes of real demonstrations."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actor_cases import byte_tokenizer

import envs
from actors.rendering.context import episode_context
from actors.rendering.factory import make_renderer, render_demonstration
from archer.config.models import RunConfig
from archer.driver.exact_actions import exact_actions


def config_of(env: dict[str, Any], **settings: Any) -> RunConfig:
    return RunConfig.model_validate({"model": {"path": "m"}, "env": env} | settings)


@pytest.mark.parametrize(
    ("env", "renderer"), [({"id": "key_door", "kwargs": {"maps": 3}}, "plain"), ({"id": "text_nav"}, "chat")]
)
def test_each_legal_action_has_its_tokens_and_its_value(tmp_path: Path, env: dict[str, Any], renderer: Any) -> None:
    from actor_cases import CHAT_TEMPLATE

    tokenizer = byte_tokenizer(chat_template=CHAT_TEMPLATE)
    tokenizer.save_pretrained(tmp_path)
    config = config_of(env, rollout={"renderer": renderer}, learner={"critic": {"gamma": 0.9}})
    found = exact_actions(config, str(tmp_path))
    assert found is not None
    exact = pickle.loads(pickle.dumps(found))
    kwargs = env.get("kwargs", {})
    (demo,) = envs.demonstrate(env["id"], episodes=1, skill=0.5, seed=7, **kwargs)
    episode = render_demonstration(demo, make_renderer(config.rollout, tokenizer), episode_context(config.rollout))
    turns = np.array([0, len(demo.actions) - 1], np.int32)
    known = envs.exact_values(env["id"], kwargs, 0.9)
    assert known is not None
    states = known.along(7, demo.actions)
    for turn, values in zip(turns, exact(episode, turns), strict=True):
        written = {tokenizer.decode(action[:-1]): value for action, value in values.items()}
        assert written == states[turn]
        played = tuple(episode.tokens[episode.action_start[turn] : episode.action_end[turn]].tolist())
        assert values[played] == states[turn][demo.actions[turn]]


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ({"id": "wordle"}, {}),
        ({"id": "key_door"}, {"algorithm": "reinforce"}),
        ({"id": "key_door"}, {"learner": {"diagnosis_episodes": 0}}),
    ],
)
def test_nothing_is_solved_where_no_critic_is_measured(env: dict[str, Any], settings: dict[str, Any]) -> None:
    assert exact_actions(config_of(env, **settings), "m") is None
