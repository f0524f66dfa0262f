"""Sections of the algorithms under `learner`, and what a run must know of an algorithm without importing it.

Each algorithm has its own section, so that one preset can hold tuned settings of all of them. ArCHer's are `critic` and
`actor`; the offline method and CHAI read `critic` too. The defaults are those of the ArCHer paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from learner.critic_config import RecentDraws, StrictConfig, Unit


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
    privileged_weight: float = Field(
        0.0, ge=0, description="Weight of predicting, at each state, what the environment hides (info['privileged'])."
    )
    held_out: float = Field(
        0.0, ge=0, lt=1, description="Share of the demonstrations on which the loss is measured instead of trained."
    )
    measure_every: int = Field(25, ge=1, description="Steps between measures of the held-out loss.")
    patience: int | None = Field(
        None,
        ge=1,
        description="End cloning after this many held-out measures in which neither the loss of actions nor that of "
        "observations fell; null takes all `steps`.",
    )
    least_fall: float = Field(
        0.005, ge=0, description="Smallest fall of a held-out loss that counts, in nats per token."
    )
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
