"""Loops of packages that adapters wrap, with nothing of ours around them, for `bench/envs.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def openenv_own(kwargs: dict[str, Any], episodes: list[tuple[int, list[str]]], clock: Callable[[], float]) -> float:
    """Steps per second of OpenEnv's own client on the same server, one of ours, with the same actions."""
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
