"""Random strings by Hypothesis, which every environment must accept without raising."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
from bench.fuzz_envs import ACTIONS, action_lists, play


def fuzz(env_id: str, words: list[str], *, actions: int = 10_000, leaves_random: bool = True, **kwargs) -> None:
    """Play `actions` actions made of `words`, of random text and of known hostile strings. Play each example twice,
    because the same seed and actions must give the same episode. Check that no observation contains the hidden word and
    that the global `random` is unused, unless `leaves_random` says that another part of the process draws from it.
    """
    env = envs.make(env_id, **kwargs)

    @settings(
        max_examples=-(-actions // ACTIONS),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**62), action_lists(words))
    def run(seed: int, chosen: list[str]) -> None:
        state = random.getstate()
        assert play(env, seed, chosen) == play(env, seed, chosen)
        assert random.getstate() == state or not leaves_random, f"{env_id} drew from the global random"

    run()
    env.close()
