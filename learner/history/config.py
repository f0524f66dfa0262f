"""The section `history` of a run."""

from __future__ import annotations

from pydantic import Field

from learner.critic_config import StrictConfig


class HistoryConfig(StrictConfig):
    """What the run folder keeps of episodes and values for people to look at."""

    episodes_per_cycle: int = Field(
        32, ge=0, description="Training episodes of each cycle that are kept, at most; 0 keeps none."
    )
    evaluation_episodes: int = Field(
        32, ge=0, description="Episodes of each evaluation that are kept, at most; 0 keeps none."
    )
    turns_per_cycle: int = Field(
        20_000,
        ge=0,
        description="Turns of each cycle and rank whose values (Q, V, advantage, target) are kept, at most; 0 keeps "
        "none.",
    )
    revalued_episodes: int = Field(
        256,
        ge=0,
        description="Kept training episodes that an utterance critic values again at the end of the run, at most; if "
        "its V needs no fresh actions, at each evaluation too. 0 values none.",
    )
    max_mb: int = Field(
        512,
        ge=1,
        description="Size of history/ in MiB; beyond it, cycles are dropped so that the rest stay evenly spread.",
    )
