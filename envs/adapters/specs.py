"""What is known of the adapters before their packages are imported."""

from __future__ import annotations

from ..base import EnvSpec

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
