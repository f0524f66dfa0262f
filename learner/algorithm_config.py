"""Sections of the algorithms under `learner`, and what a run must know of an algorithm without importing it.

Each algorithm has its own section, so that one preset can hold tuned settings of all of them. ArCHer's are `critic` and
`actor`; the offline method and CHAI read `critic` too. The defaults are those of the ArCHer paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Literal["turn", "episode"]


class StrictConfig(BaseModel):
    """Refuses unknown keys, and validates a value when it is assigned."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AlgorithmConfig(StrictConfig):
    """The section of an algorithm. As a field of `LearnerConfig` it makes the algorithm known.

    Attributes:
        implementation: "module:Class" of the `learner.algorithms.base.Algorithm`, imported when the learner starts.
        algorithm: the value of the run's `algorithm`; empty if it is the section's own name.
        has_critic: whether the algorithm trains an utterance-level critic.
        has_v_heads: whether it trains V in a way that needs heads, so that `critic.value` cannot be "fresh".
    """

    implementation: ClassVar[str]
    algorithm: ClassVar[str] = ""
    has_critic: ClassVar[bool] = False
    has_v_heads: ClassVar[bool] = False

    def proposals(self) -> int:
        """Return the number of actions among which the critic chooses at play; 0 if the policy plays alone."""
        return 0

    def check_run(self, name: str, *, offline_cycles: int, episodes_per_cycle: int) -> None:
        """Raise ValueError if algorithm `name` cannot learn in a run of this shape."""


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

    backbone: str = Field(
        "policy", description="'policy' (the clone's weights), or a Hugging Face name or folder, causal or encoder."
    )
    reads: Literal["tokens", "text"] = Field(
        "tokens", description="Input of an encoder backbone: the policy's tokens, or their re-tokenized text."
    )
    build: BackboneConfig | None = Field(
        None, description="A small causal backbone with random weights instead of `backbone`."
    )
    backbones: Literal["shared", "apart"] = Field(
        "shared", description="One backbone for Q and V (the authors' code), or one each."
    )
    heads: int = Field(2, ge=1, description="Q heads, and V heads; their minimum is used (the paper: 2).")
    head_hidden_size: int = Field(256, ge=8, description="Width of the hidden layer of each value head.")
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
    warmup_steps: int = Field(0, ge=0, description="Critic steps in the first cycle beside its own, before the actor.")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which the critic's gradient is clipped.")
    max_tokens: int = Field(512, ge=8, description="Most tokens of an encoder's input; a longer state keeps the last.")

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


class PolicyGradientConfig(AlgorithmConfig):
    """The common settings of ArCHer's actor and the on-policy methods."""

    lr: float = Field(1e-5, gt=0, description="Learning rate of AdamW.")
    epochs: int = Field(1, ge=1, description="Passes over a cycle's batches; set `clip` for more than one.")
    clip: float | None = Field(
        None, gt=0, lt=1, description="Clip the ratio to [1-clip, 1+clip] as in PPO; null is the plain gradient."
    )
    kl_stop: float | None = Field(
        None, gt=0, description="End the phase above this mean KL per token from the behaviour policy."
    )
    kl_to_clone: float = Field(
        0.0, ge=0, description="Weight of the KL per token to the starting policy; 0 loads no copy of it."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which the policy's gradient is clipped.")


class ActorConfig(PolicyGradientConfig, RecentDraws):
    """`archer`: the token-level policy gradient with the critic's advantage."""

    implementation = "learner.algorithms.archer:Archer"
    algorithm = "archer"
    has_critic = True

    objective: Literal["policy_gradient", "improvement"] = Field(
        "policy_gradient", description="Token-level policy gradient (the paper), or regression onto an improved policy."
    )
    weights: Literal["linear", "exponential"] = Field(
        "linear", description="Weight of a fresh action in the improvement: 1 + A / T, or exp(A / T)."
    )
    temperature: float = Field(0.4, gt=0, description="T of the improvement, in units of reward.")
    weight_range: tuple[float, float] = Field((0.02, 5.0), description="Bounds of an action's weight.")
    dropped_share: float = Field(
        0.05, ge=0, lt=1, description="Actions with a smaller share of the improved policy are left out."
    )
    steps_per_cycle: int = Field(3, ge=0, description="Actor batches in each cycle.")
    unit: Unit = Field("turn", description="Draw single turns (the paper) or whole episodes.")
    fresh_per_state: int = Field(1, ge=1, description="Fresh actions per state in the gradient.")
    max_staleness: int | None = Field(
        None, ge=0, description="Most versions by which sampled episodes are behind; null draws from all."
    )
    normalise_advantage: bool = Field(False, description="Scale the advantages of a step to unit standard deviation.")
    importance_cap: float = Field(1.0, gt=0, description="Upper bound of the importance ratio of older fresh actions.")
    token_baseline: bool = Field(
        False, description="Subtract a learned baseline b(s, a_<h) from each token's advantage."
    )
    baseline_hidden_size: int = Field(256, ge=8, description="Width of the hidden layer of the token-level baseline.")

    @model_validator(mode="after")
    def _consistent(self) -> ActorConfig:
        low, high = self.weight_range
        if not 0 <= low <= 1 <= high:
            raise ValueError(f"weight_range {list(self.weight_range)} must contain 1 and no negative weight")
        if self.objective == "improvement":
            unused = {"clip": self.clip is not None, "token_baseline": self.token_baseline}
            unused["normalise_advantage"] = self.normalise_advantage
            for name in (name for name, is_set in unused.items() if is_set):
                raise ValueError(f"{name} belongs to the policy gradient, and objective=improvement has no use for it")
            if self.fresh_per_state < 2:
                raise ValueError("objective=improvement compares the fresh actions of a state; set fresh_per_state=16")
        return self


class OfflineConfig(AlgorithmConfig):
    """`archer_offline`: V by expectile regression (IQL), actor by advantage-weighted regression, no fresh actions."""

    implementation = "learner.algorithms.archer_offline:ArcherOffline"
    algorithm = "archer_offline"
    has_critic = True
    has_v_heads = True

    expectile: float = Field(0.7, gt=0, lt=1, description="Expectile of V over the data's actions; 0.5 is their mean.")
    beta: float = Field(0.1, gt=0, description="Temperature of the weights exp(A / beta).")
    max_weight: float = Field(20.0, ge=1, description="Largest weight of an action.")
    lr: float = Field(1e-5, gt=0, description="Learning rate of the actor's AdamW in archer_offline runs.")
    steps_per_cycle: int = Field(50, ge=0, description="Actor steps in each cycle.")
    batch: int = Field(256, ge=1, description="Samples per actor step, in units of `unit`.")
    unit: Unit = Field("turn", description="Draw single turns or whole episodes.")


class ChaiConfig(AlgorithmConfig):
    """`chai`: the cloned policy proposes actions and a critic chooses one; the policy never changes."""

    implementation = "learner.algorithms.chai:Chai"
    has_critic = True
    has_v_heads = True

    candidates: int = Field(5, ge=2, description="Actions that the policy proposes at each state (the paper: 5).")

    def proposals(self) -> int:
        return self.candidates


class CloneConfig(AlgorithmConfig):
    """Behavioural cloning of the demonstrations before the first cycle; `bc` does nothing else."""

    implementation = "learner.algorithms.bc:BehaviourCloning"
    algorithm = "bc"

    steps: int = Field(
        0, ge=0, description="Gradient steps, the most of them with `patience`; 0 starts from the model as it is."
    )
    batch: int = Field(32, ge=1, description="Episodes per step.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of AdamW, which falls linearly to zero.")
    observation_weight: float = Field(
        0.0, ge=0, description="Weight of the mean loss of observation tokens beside that of action tokens; 0 omits it."
    )
    held_out: float = Field(
        0.0, ge=0, lt=1, description="Share of the demonstrations on which the loss is measured instead of trained."
    )
    measure_every: int = Field(25, ge=1, description="Steps between measures of the held-out loss.")
    patience: int | None = Field(
        None, ge=1, description="End cloning after this many held-out measures without a fall; null takes all `steps`."
    )
    least_fall: float = Field(0.005, ge=0, description="Smallest fall of the held-out loss that counts, in nats.")
    decay_steps: int = Field(
        100, ge=1, description="Last steps, in which the rate falls to zero if `patience` is set; before, it is `lr`."
    )

    @model_validator(mode="after")
    def _end_can_be_found(self) -> CloneConfig:
        if self.patience is None or self.steps == 0:
            return self
        if self.held_out == 0:
            raise ValueError(
                f"`patience` {self.patience} ends cloning by the loss on held-out demonstrations, and `held_out` is 0; "
                "set held_out, for example to 0.1"
            )
        if self.decay_steps >= self.steps:
            raise ValueError(
                f"`decay_steps` {self.decay_steps} leaves no step before the fall of the rate, because `steps` is "
                f"{self.steps}; lower decay_steps or raise steps"
            )
        return self

    def check_run(self, name: str, *, offline_cycles: int, episodes_per_cycle: int) -> None:
        if self.steps == 0:
            raise ValueError(f"`algorithm` {name} only clones, but `learner.clone.steps` is 0; set learner.clone.steps")


class FilteredCloningConfig(AlgorithmConfig):
    """`filtered_bc`: clone the episodes of replay with the highest return."""

    implementation = "learner.algorithms.filtered_bc:FilteredCloning"

    best: float = Field(0.1, gt=0, le=1, description="Share of replay's episodes to clone, those of highest return.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of AdamW.")
    steps_per_cycle: int = Field(50, ge=0, description="Gradient steps in each cycle.")
    batch: int = Field(32, ge=1, description="Episodes per step.")


class OnPolicyConfig(PolicyGradientConfig):
    """The common settings of the methods that learn from a cycle's own episodes."""

    batch: int = Field(32, ge=1, description="Episodes per gradient step.")
    normalise_advantage: bool = Field(True, description="Scale a cycle's token advantages to mean 0 and deviation 1.")

    def check_run(self, name: str, *, offline_cycles: int, episodes_per_cycle: int) -> None:
        if offline_cycles:
            raise ValueError(
                f"`algorithm` {name} learns from the cycle's own episodes, and the first {offline_cycles} cycles "
                "(`offline_cycles`) play none; set offline_cycles=0"
            )


class PpoConfig(OnPolicyConfig):
    """`ppo`: token-level PPO; the value function has its own copy of the cloned policy's backbone."""

    implementation = "learner.algorithms.ppo:Ppo"

    epochs: int = Field(4, ge=1, description="Passes over the cycle's episodes.")
    clip: float | None = Field(0.2, gt=0, lt=1, description="Clip the probability ratio to [1-clip, 1+clip].")
    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn; within a turn there is none.")
    lambda_turn: float = Field(0.95, ge=0, le=1, description="Trace of GAE across the end of a turn.")
    lambda_token: float = Field(1.0, ge=0, le=1, description="Trace of GAE between the tokens of an utterance.")
    value_lr: float = Field(2e-5, gt=0, description="Learning rate of the value function's AdamW.")
    value_hidden_size: int = Field(256, ge=8, description="Width of the value head's hidden layer.")
    warmup_cycles: int = Field(0, ge=0, description="First cycles in which only the value function learns.")


class ReinforceConfig(OnPolicyConfig):
    """`reinforce`: the return to go of each turn, minus the mean over the cycle."""

    implementation = "learner.algorithms.reinforce:Reinforce"

    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn.")
    baseline: bool = Field(True, description="Subtract the mean of the returns to go over the cycle's turns.")


class GrpoConfig(OnPolicyConfig):
    """`grpo`: each episode's return relative to its group, whose episodes play the same environment seed."""

    implementation = "learner.algorithms.grpo:Grpo"

    group: int = Field(8, ge=2, description="Episodes of one environment seed; must divide episodes_per_cycle.")
    scale: bool = Field(True, description="Divide by the standard deviation of the group's returns (the paper).")
    epochs: int = Field(2, ge=1, description="Passes over the cycle's episodes.")
    clip: float | None = Field(0.2, gt=0, lt=1, description="Clip the probability ratio to [1-clip, 1+clip].")
    normalise_advantage: bool = Field(False, description="Scale a cycle's token advantages again, over all groups.")

    def check_run(self, name: str, *, offline_cycles: int, episodes_per_cycle: int) -> None:
        super().check_run(name, offline_cycles=offline_cycles, episodes_per_cycle=episodes_per_cycle)
        if episodes_per_cycle % self.group:
            raise ValueError(
                f"`episodes_per_cycle` {episodes_per_cycle} is not a multiple of `learner.{name}.group` {self.group}: "
                "a whole group plays each environment seed"
            )
