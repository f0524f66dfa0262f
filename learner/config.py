"""Settings of the learner. Defaults are those of the ArCHer paper's authors (DESIGN, section 2).

Each method has a section of its own, so that one preset holds tuned settings of all of them and choosing another
is one field: `critic` and `actor` are ArCHer's; the offline method takes `critic` too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

AlgorithmName = Literal["archer", "archer_offline", "bc", "chai", "filtered_bc", "grpo", "ppo", "reinforce"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class BackboneConfig(_Config):
    """A small causal backbone made from scratch, for runs that download nothing."""

    hidden_size: int = Field(128, ge=8, description="Width of the residual stream.")
    layers: int = Field(2, ge=1, description="Number of transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size.")
    intermediate_size: int = Field(256, ge=8, description="Width of the feed-forward layer.")

    @model_validator(mode="after")
    def _heads_divide(self) -> BackboneConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class CriticConfig(_Config):
    """The utterance-level critic: double Q and double V heads on one backbone."""

    backbone: str = Field(
        "policy",
        description="'policy' (the cloned policy's weights), or a Hugging Face name or folder, causal or encoder.",
    )
    reads: Literal["tokens", "text"] = Field(
        "tokens",
        description="What an encoder backbone gets: the policy's tokens piece by piece, or their text cut anew.",
    )
    build: BackboneConfig | None = Field(
        None, description="Make a small causal backbone from scratch instead of loading `backbone`."
    )
    backbones: Literal["shared", "apart"] = Field(
        "shared",
        description="One backbone under the Q and V heads (the authors' code), or one for Q and one for V.",
    )
    heads: int = Field(2, ge=1, description="Ensemble of Q and of V; the smallest of them counts (2 is the paper's).")
    head_hidden_size: int = Field(256, ge=8, description="Width of the hidden layer of each value head.")
    lr: float = Field(2e-5, gt=0, description="Learning rate of AdamW.")
    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn.")
    tau: float = Field(0.1, gt=0, le=1, description="Rate of the target network's exponential average.")
    n_step: int = Field(1, ge=1, description="Turns of reward summed before the target bootstraps.")
    lambda_turn: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Mix the 1- to n_step-step targets as a lambda-return; null takes n_step alone.",
    )
    steps_per_cycle: int = Field(50, ge=0, description="Critic steps in each cycle.")
    batch: int = Field(256, ge=1, description="Samples per critic step, in units of `unit`.")
    unit: Literal["turn", "episode"] = Field(
        "turn",
        description="Draw single turns (the paper) or whole episodes, all turns of which share one pass.",
    )
    sampler: Literal["uniform", "prioritised"] = Field(
        "uniform",
        description="Draw uniformly (the paper), or in proportion to |TD error| ** replay.priority_exponent.",
    )
    importance_exponent: float = Field(
        0.4, ge=0, le=1, description="How far weights undo the preference of prioritised draws: 0 not, 1 wholly."
    )
    fresh_per_state: int = Field(1, ge=1, description="Fresh actions per state that estimate V.")
    warmup_cycles: int = Field(10, ge=0, description="First cycles in which only the critic learns.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm at which the critic's gradient is clipped.")
    max_tokens: int = Field(
        512, ge=8, description="Tokens an encoder backbone reads of a state, the last ones being kept."
    )


class ActorConfig(_Config):
    """The token-level policy gradient fed by the critic's advantage."""

    lr: float = Field(1e-5, gt=0, description="Learning rate of AdamW.")
    steps_per_cycle: int = Field(3, ge=0, description="Actor batches in each cycle.")
    epochs: int = Field(1, ge=1, description="Passes over a cycle's actor batches; more than one wants `clip`.")
    batch: int = Field(256, ge=1, description="Samples per actor step, in units of `unit`.")
    unit: Literal["turn", "episode"] = Field("turn", description="Draw single turns (the paper) or whole episodes.")
    fresh_per_state: int = Field(1, ge=1, description="Fresh actions per state in the gradient.")
    max_staleness: int | None = Field(
        None,
        ge=0,
        description="Draw states only from episodes at most this many versions old; null draws from all.",
    )
    normalise_advantage: bool = Field(False, description="Scale advantages of a step to unit standard deviation.")
    clip: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Clip the probability ratio to [1-clip, 1+clip] as PPO does; null is the plain gradient.",
    )
    kl_stop: float | None = Field(
        None,
        gt=0,
        description="End the actor phase when the mean KL per token from the behaviour policy passes this.",
    )
    importance_cap: float = Field(
        1.0,
        gt=0,
        description="Upper bound of the importance ratio for fresh actions that an older version wrote.",
    )
    kl_to_clone: float = Field(
        0.0,
        ge=0,
        description="Weight of the KL per token to the policy that the run started from; 0 holds no copy of it.",
    )
    token_baseline: bool = Field(
        False, description="Learn a baseline b(s, a_<h) of the advantage and subtract it on each token."
    )
    baseline_hidden_size: int = Field(256, ge=8, description="Width of the hidden layer of the token-level baseline.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm at which the actor's gradient is clipped.")


class OfflineConfig(_Config):
    """`archer_offline`: V by expectile regression (IQL), actor by advantage-weighted regression, no fresh actions."""

    expectile: float = Field(0.7, gt=0, lt=1, description="Expectile of V over the data's actions; 0.5 is their mean.")
    beta: float = Field(
        0.1, gt=0, description="Temperature of the weights exp(A / beta); small trusts the critic more."
    )
    max_weight: float = Field(20.0, ge=1, description="Largest weight of an action.")
    lr: float = Field(1e-5, gt=0, description="Learning rate of the actor's AdamW, in archer_offline runs.")
    steps_per_cycle: int = Field(50, ge=0, description="Actor steps in each cycle.")
    batch: int = Field(256, ge=1, description="Samples per actor step, in units of `unit`.")
    unit: Literal["turn", "episode"] = Field("turn", description="Draw single turns or whole episodes.")


class ChaiConfig(_Config):
    """`chai`: the cloned policy proposes actions, ArCHer's critic picks one; the policy never changes."""

    candidates: int = Field(5, ge=2, description="Actions that the policy proposes at each state (5 is the paper's).")


class FilteredCloningConfig(_Config):
    """`filtered_bc`: clone the best share of the episodes that replay holds."""

    best: float = Field(0.1, gt=0, le=1, description="Share of the replay's episodes, the best by return, to clone.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of AdamW.")
    steps_per_cycle: int = Field(50, ge=0, description="Gradient steps in each cycle.")
    batch: int = Field(32, ge=1, description="Episodes per step.")


class OnPolicyConfig(_Config):
    """What the methods that learn from a cycle's own episodes have in common."""

    lr: float = Field(1e-5, gt=0, description="Learning rate of AdamW.")
    batch: int = Field(
        32, ge=1, description="Episodes per gradient step; each of the cycle's episodes is in one batch."
    )
    epochs: int = Field(1, ge=1, description="Passes over the cycle's episodes; more than one wants `clip`.")
    clip: float | None = Field(
        None, gt=0, lt=1, description="Clip the probability ratio to [1-clip, 1+clip]; null is the plain gradient."
    )
    kl_stop: float | None = Field(
        None,
        gt=0,
        description="End a cycle's learning when the mean KL per token from the behaviour policy passes this.",
    )
    kl_to_clone: float = Field(
        0.0,
        ge=0,
        description="Weight of the KL per token to the policy that the run started from; 0 holds no copy of it.",
    )
    normalise_advantage: bool = Field(
        True, description="Scale a cycle's token advantages to zero mean and unit standard deviation."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm at which the gradient is clipped.")


class PpoConfig(OnPolicyConfig):
    """`ppo`: token-level PPO; the value head has a copy of the cloned policy's backbone to itself."""

    epochs: int = Field(4, ge=1, description="Passes over the cycle's episodes.")
    clip: float | None = Field(0.2, gt=0, lt=1, description="Clip the probability ratio to [1-clip, 1+clip].")
    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn; within an utterance nothing is discounted.")
    lambda_turn: float = Field(0.95, ge=0, le=1, description="Trace of GAE across the end of a turn.")
    lambda_token: float = Field(1.0, ge=0, le=1, description="Trace of GAE from token to token of an utterance.")
    value_lr: float = Field(2e-5, gt=0, description="Learning rate of the value function's AdamW.")
    value_hidden_size: int = Field(256, ge=8, description="Width of the value head's hidden layer.")
    warmup_cycles: int = Field(0, ge=0, description="First cycles in which only the value function learns.")


class ReinforceConfig(OnPolicyConfig):
    """`reinforce`: each turn's return from there on, less the mean of the cycle's."""

    gamma: float = Field(0.95, gt=0, le=1, description="Discount per turn.")
    baseline: bool = Field(True, description="Subtract the mean of the returns to go over the cycle's turns.")


class GrpoConfig(OnPolicyConfig):
    """`grpo`: each episode's return against the others of its group, which play the same environment seed."""

    group: int = Field(8, ge=2, description="Episodes of one environment seed; must divide episodes_per_cycle.")
    scale: bool = Field(True, description="Divide by the standard deviation of the group's returns (the paper's).")
    epochs: int = Field(2, ge=1, description="Passes over the cycle's episodes.")
    clip: float | None = Field(0.2, gt=0, lt=1, description="Clip the probability ratio to [1-clip, 1+clip].")
    normalise_advantage: bool = Field(False, description="Scale a cycle's token advantages once more, over all groups.")


class CloneConfig(_Config):
    """Behavioural cloning of the demonstrations before the first cycle."""

    steps: int = Field(0, ge=0, description="Gradient steps; 0 starts from the model as it is.")
    batch: int = Field(32, ge=1, description="Episodes per step.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of AdamW, falling linearly to zero over the steps.")


class LoraConfig(_Config):
    """Adapters in place of whole models: policy, critic, target and reference share one frozen copy of the weights."""

    rank: int = Field(16, ge=1, description="Rank of each adapter's two matrices.")
    alpha: int = Field(32, ge=1, description="An adapter's product counts alpha / rank times.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Layers with an adapter: all linear ones of the blocks, or their names."
    )
    critic: bool = Field(
        True, description="Train adapters in the critic too; false, or `critic.build`, trains its backbone whole."
    )
    clone: Literal["full", "adapter"] = Field(
        "full",
        description="Clone by training the whole model, or an adapter; either way the clone is the base from then on.",
    )
    adapter: str | None = Field(
        None, description="Folder of a peft adapter for `model.path` that the policy starts from."
    )


class BroadcastConfig(_Config):
    """Handing the policy's weights to the engines, and proving that they arrived."""

    backend: Literal["shm", "nccl", "ipc"] = Field(
        "shm", description="shm: shared memory on CPU; nccl: across GPUs; ipc: learner and engine on one GPU."
    )
    timeout_s: float = Field(120.0, gt=0, description="Seconds that each step of a broadcast may take.")
    tolerance: float = Field(
        1e-3,
        gt=0,
        description="Largest gap in log-probability between learner and engine that the proof accepts.",
    )
    probe_tokens: int = Field(48, ge=2, description="Length of the token sequence that the proof compares.")


class LearnerConfig(_Config):
    """The training function: methods, engines and their schedule."""

    ranks: int = Field(1, ge=1, description="Learner processes, one per GPU where there are GPUs.")
    use_gpu: bool = Field(False, description="Give each rank a GPU.")
    cpus_per_rank: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each rank.")
    threads: int = Field(1, ge=1, description="Torch threads of each rank.")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="DeepSpeed ZeRO stage of actor and critic.")
    optimizer_offload: bool = Field(
        False, description="Keep the optimizer's state in the host's memory and step there; wants zero_stage 1 to 3."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the models' passes; what is trained is held in float32 either way."
    )
    activation_checkpointing: bool = Field(
        False, description="Recompute activations of policy and critic in the backward pass."
    )
    lora: LoraConfig | None = Field(None, description="Train adapters on a frozen base; null trains whole models.")
    micro_batch: int = Field(64, ge=1, description="Token sequences in one forward pass of one rank.")
    prefetch_steps: int = Field(
        64,
        ge=1,
        description="Steps whose samples are drawn, and fresh actions asked for, at once and ahead of need; their "
        "episodes are held meanwhile.",
    )
    timeout_s: float = Field(600.0, gt=0, description="Seconds that the learner waits for episodes or fresh actions.")
    critic: CriticConfig = Field(default_factory=CriticConfig, description="The utterance-level critic.")
    actor: ActorConfig = Field(default_factory=ActorConfig, description="The token-level policy gradient.")
    offline: OfflineConfig = Field(default_factory=OfflineConfig, description="Offline ArCHer: IQL critic, AWR actor.")
    chai: ChaiConfig = Field(default_factory=ChaiConfig, description="CHAI: best of several by Q.")
    filtered_bc: FilteredCloningConfig = Field(
        default_factory=FilteredCloningConfig, description="Cloning of the best episodes."
    )
    ppo: PpoConfig = Field(default_factory=PpoConfig, description="Token-level PPO.")
    reinforce: ReinforceConfig = Field(default_factory=ReinforceConfig, description="REINFORCE.")
    grpo: GrpoConfig = Field(default_factory=GrpoConfig, description="GRPO over episodes.")
    clone: CloneConfig = Field(default_factory=CloneConfig, description="Behavioural cloning before the first cycle.")
    broadcast: BroadcastConfig = Field(default_factory=BroadcastConfig, description="Weights from learner to engines.")

    @model_validator(mode="after")
    def _offload_has_shards(self) -> LearnerConfig:
        if self.optimizer_offload and self.zero_stage == 0:
            raise ValueError(
                "`optimizer_offload` moves the optimizer's shards, and at `zero_stage` 0 there are none; set "
                "zero_stage to 1, 2 or 3"
            )
        return self

    @model_validator(mode="after")
    def _adapter_keeps_its_base(self) -> LearnerConfig:
        if self.lora is not None and self.lora.adapter is not None and self.clone.steps:
            raise ValueError(
                f"`lora.adapter` is {self.lora.adapter!r}, an adapter for the model that the run starts from, and "
                f"`clone.steps` is {self.clone.steps}, which makes another base of it; set clone.steps=0 or drop the "
                "adapter"
            )
        return self
