"""Specs of the adapters, in a module that imports none of the wrapped packages."""

from __future__ import annotations

from envs.base import EnvSpec

GYMNASIUM = EnvSpec(
    id="gymnasium",
    description="Any environment of Gymnasium with text or discrete actions.",
    max_turns=1000,
    reward_range=(-float("inf"), float("inf")),
    isolation="thread",
    extra="gymnasium",
)
OPENENV = EnvSpec(
    id="openenv",
    description="Any environment that an OpenEnv server serves, by its address.",
    max_turns=1000,
    reward_range=(-float("inf"), float("inf")),
    isolation="thread",
    extra="openenv",
)
TEXTARENA = EnvSpec(
    id="textarena",
    description="A single-player game of TextArena: puzzles, number games, cards.",
    max_turns=100,
    reward_range=(-1.0, 1.0),
    # The games seed and use the global random generator, and may hang on an action.
    isolation="process",
    extra="textarena",
)
TEXTWORLD = EnvSpec(
    id="textworld",
    description="A game of TextWorld, made from the seed or from a file of your own.",
    max_turns=50,
    reward_range=(0.0, 1.0),
    isolation="process",
    extra="textworld",
)
MINIWOB = EnvSpec(
    id="miniwob",
    description="One of MiniWoB's tasks in a real browser, read as an accessibility tree.",
    max_turns=10,
    reward_range=(0.0, 1.0),
    isolation="process",
    extra="miniwob",
)
