"""The `learner` section of a run's configuration. The sections of the algorithms are in `learner.algorithm_config`,
that of the critic in `learner.critic_config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field, model_validator

from buffer.custom_resources import CustomResources
from learner.algorithm_config import (
    ActorConfig,
    AlgorithmConfig,
    ChaiConfig,
    CloneConfig,
    FilteredCloningConfig,
    GrpoConfig,
    OfflineConfig,
    PpoConfig,
    ReinforceConfig,
)
from learner.critic_config import CriticConfig, Passes, PathText, StrictConfig


class LoraConfig(StrictConfig):
    """Adapters instead of whole models: policy, critic, target and reference share one frozen copy of the weights."""

    rank: int = Field(16, ge=1, description="Rank of each adapter's two matrices.")
    alpha: int = Field(32, ge=1, description="An adapter's product is multiplied by alpha / rank.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Layers with an adapter: all linear ones, or a list of names."
    )
    critic: bool = Field(
        True, description="Train adapters in the critic; false, or `critic.build`, trains its whole backbone."
    )
    clone: Literal["full", "adapter"] = Field(
        "full", description="Train the whole model or an adapter in cloning; the clone becomes the base."
    )
    adapter: PathText | None = Field(None, description="Folder of the peft adapter for `model.path` to start from.")


Backend: TypeAlias = Literal["auto", "shm", "stream", "nccl", "ipc"]


class BroadcastConfig(StrictConfig):
    """The transfer of the policy's weights to the engines, and the proof that they arrived."""

    backend: Backend = Field(
        "auto",
        description="shm: memory of one host; stream: between hosts; nccl: between GPUs; ipc: learner and engine on "
        "one GPU; auto: nccl if ranks and engines have whole GPUs, else shm on rank 0's host and a stream to others.",
    )
    timeout_s: float = Field(120.0, gt=0, description="Time limit of each step of a broadcast in seconds.")
    tolerance: float = Field(1e-3, gt=0, description="Largest difference in log-probability that the proof accepts.")
    probe_tokens: int = Field(48, ge=2, description="Length of the token sequence that the proof compares.")


class LearnerConfig(StrictConfig):
    """The training function: algorithms, engines and their schedule."""

    ranks: int = Field(1, ge=1, description="Learner processes; with GPUs, one for each GPU.")
    use_gpu: bool = Field(False, description="Give each rank a GPU.")
    cpus_per_rank: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each rank.")
    resources: CustomResources = Field(
        {}, description="Custom resources of Ray that each rank reserves, which keep ranks on some nodes."
    )
    threads: int = Field(1, ge=1, description="Torch threads of each rank.")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="DeepSpeed ZeRO stage of actor and critic.")
    optimizer_offload: bool = Field(
        False, description="Keep the optimizer's state in host memory; requires zero_stage 1 to 3."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the models' passes; trained weights are float32 in both cases."
    )
    activation_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    passes: Passes = Field(
        "auto",
        description="packed: an episode and its fresh actions in one pass; separate: a sequence each; auto proves.",
    )
    lora: LoraConfig | None = Field(None, description="Train adapters on a frozen base; null trains whole models.")
    micro_batch: int = Field(64, ge=1, description="Token sequences in one forward pass of one rank.")
    prefetch_steps: int = Field(
        64, ge=1, description="Steps whose samples and fresh actions are requested together, in advance."
    )
    diagnosis_episodes: int = Field(
        64, ge=0, description="New episodes of a cycle on which the critic is measured before it trains; 0 for none."
    )
    timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds that the learner waits for episodes or fresh actions, and the driver for a rank's answer.",
    )
    restarts: int = Field(
        3,
        ge=0,
        description="Times that the ranks restart from the newest checkpoint after the death of one, within the run; "
        "the next death ends it.",
    )
    critic: CriticConfig = Field(default_factory=CriticConfig, description="The utterance-level critic.")
    actor: ActorConfig = Field(default_factory=ActorConfig, description="The token-level policy gradient.")
    offline: OfflineConfig = Field(default_factory=OfflineConfig, description="Offline ArCHer: IQL critic, AWR actor.")
    chai: ChaiConfig = Field(default_factory=ChaiConfig, description="CHAI: the best proposal by Q.")
    filtered_bc: FilteredCloningConfig = Field(
        default_factory=FilteredCloningConfig, description="Cloning of the best episodes."
    )
    ppo: PpoConfig = Field(default_factory=PpoConfig, description="Token-level PPO.")
    reinforce: ReinforceConfig = Field(default_factory=ReinforceConfig, description="REINFORCE.")
    grpo: GrpoConfig = Field(default_factory=GrpoConfig, description="GRPO over episodes.")
    clone: CloneConfig = Field(default_factory=CloneConfig, description="Behavioural cloning before the first cycle.")
    broadcast: BroadcastConfig = Field(default_factory=BroadcastConfig, description="Weights from learner to engines.")

    @classmethod
    def algorithms(cls) -> dict[str, str]:
        """Return the section of each algorithm by the algorithm's name."""
        sections = {field: info.annotation for field, info in cls.model_fields.items()}
        return {
            section.algorithm or field: field
            for field, section in sections.items()
            if isinstance(section, type) and issubclass(section, AlgorithmConfig)
        }

    def section_of(self, algorithm: str) -> AlgorithmConfig:
        """Return the settings of an algorithm. Raises ValueError for an unknown name."""
        known = self.algorithms()
        if algorithm not in known:
            raise ValueError(f"no algorithm {algorithm!r}; the algorithms are {', '.join(sorted(known))}")
        section: AlgorithmConfig = getattr(self, known[algorithm])
        return section

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


if TYPE_CHECKING:
    AlgorithmName: TypeAlias = str
else:
    AlgorithmName = Literal[tuple(sorted(LearnerConfig.algorithms()))]
    """The names of all algorithms."""
