"""The section of the utterance-level critic, which ArCHer, its offline method and CHAI read.

The defaults are those of the ArCHer paper.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Unit = Literal["turn", "episode"]
Passes = Literal["auto", "packed", "separate"]


def _expanded(path: str) -> str:
    """Return the path with the home folder in place of `~`. Raises ValueError if there is no such home folder."""
    full = os.path.expanduser(path)
    if full.startswith("~"):
        raise ValueError(f"is {path!r}, and there is no home folder for {path.split('/')[0]}; give the path in full")
    return full


PathText = Annotated[str, AfterValidator(_expanded)]
"""A path, or a name on the Hugging Face hub; `~` at its beginning becomes the home folder."""


class StrictConfig(BaseModel):
    """Refuses unknown keys, and validates a value when it is assigned."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class BackboneConfig(StrictConfig):
    """A small causal backbone with random weights, for runs that download nothing."""

    hidden_size: int = Field(128, ge=8, description="Width of the residual stream.")
    layers: int = Field(2, ge=1, description="Number of transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size.")
    intermediate_size: int = Field(256, ge=8, description="Width of the feed-forward layer.")

    @model_validator(mode="after")
    def _heads_divide(self) -> BackboneConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class RecentDraws(StrictConfig):
    """A share of recent episodes in each batch that is drawn from replay."""

    batch: int = Field(256, ge=1, description="Samples per step, in units of `unit`.")
    recent_share: float = Field(
        0.0, ge=0, le=1, description="Share of each batch from the policy's latest episodes, if replay has any."
    )
    recent_versions: int = Field(1, ge=1, description="Policy versions whose episodes count as the latest.")
    recent_repeats: float = Field(
        4.0, gt=0, description="Most draws of each of the latest episodes in a phase, so that few are not memorised."
    )

    @model_validator(mode="after")
    def _share_is_a_sample(self) -> Self:
        if self.recent_share and round(self.recent_share * self.batch) == 0:
            raise ValueError(
                f"`recent_share` {self.recent_share:g} of a `batch` of {self.batch} is less than one sample; raise one "
                "of them, or set recent_share=0"
            )
        return self


class CriticConfig(RecentDraws):
    """The utterance-level critic: an ensemble of Q and V heads on one backbone, or on one each."""

    backbone: PathText = Field(
        "policy", description="'policy' (the clone's weights), or a Hugging Face name or folder, causal or encoder."
    )
    reads: Literal["tokens", "text"] = Field(
        "tokens", description="Input of an encoder backbone: the policy's tokens, or their re-tokenized text."
    )
    build: BackboneConfig | None = Field(
        None, description="A small causal backbone with random weights instead of `backbone`."
    )
    passes: Passes = Field("auto", description="`learner.passes` of a causal backbone other than the policy's.")
    backbones: Literal["shared", "apart"] = Field(
        "shared", description="One backbone for Q and V (the authors' code), or one each."
    )
    heads: int = Field(2, ge=1, description="Q heads, and as many V heads (the paper: 2).")
    head_hidden_size: int = Field(256, ge=8, description="Width of the hidden layer of each value head.")
    q_at: Literal["action", "state_and_action"] = Field(
        "action", description="Where Q reads the backbone: at the action's last token (the paper), or the state's too."
    )
    lr: float = Field(2e-5, gt=0, description="Learning rate of AdamW.")
    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn.")
    tau: float = Field(0.1, gt=0, le=1, description="Rate of the target network's exponential average.")
    value: Literal["heads", "fresh"] = Field(
        "heads", description="V: heads that regress onto Q of fresh actions (the paper), or that backup itself."
    )
    backup: Literal["mean", "soft", "boltzmann"] = Field(
        "mean", description="Value of a state from Q of its fresh actions; soft and boltzmann favour the better ones."
    )
    backup_temperature: float = Field(0.2, gt=0, description="Temperature of soft and boltzmann, in units of reward.")
    retrace: float | None = Field(
        None, ge=0, le=1, description="Trace of Retrace over turns; null uses n_step and lambda_turn."
    )
    unwritten: Literal["clone", "tree_backup"] = Field(
        "clone",
        description="Retrace's trace at actions that no policy wrote: by the clone's probability, or trace * pi.",
    )
    loss: Literal["squared", "hl_gauss"] = Field(
        "squared", description="Squared error, or cross-entropy of a histogram of values (HL-Gauss)."
    )
    value_unit: float = Field(
        1.0, gt=0, description="Reward of one unit of a head's output: about the spread of returns."
    )
    support: tuple[float, float] | None = Field(
        None, description="Least and greatest value of the histogram; null takes the environment's range of returns."
    )
    bins: int = Field(51, ge=3, description="Bins of the histogram.")
    bin_spread: float = Field(0.75, gt=0, description="Deviation of a target's Gaussian in bin widths.")
    ensemble: Literal["min", "mean", "mean_minus_std"] = Field(
        "min", description="Value of an action over the heads: the least (the paper), or as named."
    )
    ensemble_penalty: float = Field(1.0, ge=0, description="Deviations that mean_minus_std subtracts.")
    n_step: int = Field(1, ge=1, description="Turns of reward before the target bootstraps.")
    lambda_turn: float | None = Field(
        None, ge=0, le=1, description="Mix the 1- to n_step-step targets as a lambda-return; null uses the last only."
    )
    steps_per_cycle: int = Field(50, ge=0, description="Critic steps in each cycle.")
    updates_per_turn: float | None = Field(
        None, gt=0, description="Critic steps for each new turn of a cycle, instead of steps_per_cycle; null is off."
    )
    unit: Unit = Field("turn", description="Draw turns (the paper), or episodes, whose turns share one pass.")
    sampler: Literal["uniform", "prioritised"] = Field(
        "uniform", description="Uniform (the paper), or proportional to |TD error| ** replay.priority_exponent."
    )
    importance_exponent: float = Field(
        0.4, ge=0, le=1, description="Exponent of the importance weights of prioritised draws: 1 corrects fully."
    )
    fresh_per_state: int = Field(1, ge=1, description="Fresh actions per state over which V averages Q.")
    warmup_cycles: int = Field(10, ge=0, description="First cycles in which only the critic learns.")
    observation_weight: float = Field(
        0.0, ge=0, description="Weight of the mean loss of observation tokens, which the backbone then predicts too."
    )
    privileged_weight: float = Field(
        0.0, ge=0, description="Weight of predicting, at each state, what the environment hides (info['privileged'])."
    )
    warmup_steps: int = Field(0, ge=0, description="Critic steps in the first cycle beside its own, before the actor.")
    warmup_targets: Literal["fresh", "data"] = Field(
        "fresh",
        description="Targets of the warm-up: as later, or, with value=fresh, values of the policy that wrote the data.",
    )
    warmup_lr: float | None = Field(
        None, gt=0, description="Rate with which a warm-up on data begins, to fall linearly to `lr`; null keeps `lr`."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which the critic's gradient is clipped.")
    max_tokens: int = Field(512, ge=8, description="Most tokens of an encoder's input; a longer state keeps the last.")

    @property
    def warms_up_on_data(self) -> bool:
        """Whether the first cycle begins with a phase whose targets are values of the policy that wrote the data."""
        return self.value == "fresh" and self.warmup_targets == "data" and self.warmup_steps > 0

    @property
    def has_v_heads(self) -> bool:
        """Whether the critic is built with V heads; with value=fresh only the warm-up on data trains them."""
        return self.value == "heads" or self.warms_up_on_data

    @model_validator(mode="after")
    def _consistent(self) -> CriticConfig:
        needs_fresh = {
            "backup": self.backup != "mean",
            "retrace": self.retrace is not None,
            "loss": self.loss != "squared",
        }
        for name in (name for name, set_ in needs_fresh.items() if set_ and self.value != "fresh"):
            raise ValueError(f"{name}={getattr(self, name)} needs V from fresh actions; set value=fresh")
        if self.value == "fresh" and self.unit != "episode":
            raise ValueError("value=fresh computes V at every state of an episode; set unit=episode")
        if self.value == "fresh" and self.backbones == "apart":
            raise ValueError("value=fresh has no V heads, and backbones=apart gives them one; set backbones=shared")
        if self.retrace is not None and (self.lambda_turn is not None or self.n_step > 1):
            raise ValueError("retrace replaces n_step and lambda_turn; unset them")
        if self.support is not None and self.support[0] >= self.support[1]:
            raise ValueError(f"support {list(self.support)} is empty; give the least value first")
        return self
