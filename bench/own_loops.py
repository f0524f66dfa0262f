"""Loops of the packages that adapters wrap, without code of this project, for `bench/envs.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def openenv_own(kwargs: dict[str, Any], episodes: list[tuple[int, list[str]]], clock: Callable[[], float]) -> float:
    """Return the steps per second of OpenEnv's own client on the same server, one of this project, with the same
    actions.
    """
    from openenv.core.generic_client import GenericEnvClient

    stepping, steps = 0.0, 0
    with GenericEnvClient(kwargs["url"]).sync() as client:
        for seed, actions in episodes:
            client.reset(seed=seed)
            start = clock()
            for action in actions:
                client.step({"text": action})
            stepping += clock() - start
            steps += len(actions)
    return steps / max(stepping, 1e-9)


def gymnasium_own(kwargs: dict[str, Any], episodes: list[tuple[int, list[str]]], clock: Callable[[], float]) -> float:
    """Return the steps per second of Gymnasium's own loop with the actions that are numbers."""
    import gymnasium

    env = gymnasium.make(kwargs["gym_id"])
    numbers = [(seed, [int(action) for action in actions if action.isdigit()]) for seed, actions in episodes]
    stepping, steps = 0.0, 0
    for seed, actions in numbers:
        env.reset(seed=seed)
        start = clock()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            steps += 1
            if terminated or truncated:
                break
        stepping += clock() - start
    env.close()
    return steps / max(stepping, 1e-9) if steps else 0.0


OWN: dict[str, Callable[[dict[str, Any], list[tuple[int, list[str]]], Callable[[], float]], float]] = {
    "gymnasium": gymnasium_own,
    "openenv": openenv_own,
}
"""Environment id -> the loop of the wrapped package, which returns steps per second."""
