"""The configuration of a run: the sections of this package and those of the other rooms, and what must fit together."""

from typing import Literal, Self

from pydantic import Field, model_validator

from actors.config import RolloutConfig
from archer.config.sections import (
    CheckpointConfig,
    ClusterConfig,
    DemonstrationConfig,
    EnvConfig,
    EvaluationConfig,
    MetricsConfig,
    ModelConfig,
)
from archer.trackers.base import TrackerName
from buffer.config import ReplayConfig
from learner.algorithm_config import AlgorithmConfig
from learner.config import AlgorithmName, Backend, LearnerConfig
from learner.critic_config import PathText, StrictConfig
from learner.history.config import HistoryConfig


class RunConfig(StrictConfig):
    """The settings of a run; the run folder keeps them in full as config.yaml."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the run and of its folder."
    )
    runs_dir: PathText = Field("runs", min_length=1, description="Folder that contains the folders of runs.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random stream of the run.")
    algorithm: AlgorithmName = Field(
        "archer", description="How the policy learns after cloning; see the sections of `learner`."
    )
    mode: Literal["sync", "async", "inline"] = Field(
        "sync",
        description="Whether rollouts and learning alternate (sync) or run at the same time (async); inline alternates "
        "in one process without Ray and vLLM, for small models on a CPU.",
    )
    cycles: int = Field(10, ge=0, description="Learner cycles; 0 ends the run after cloning and its evaluation.")
    offline_cycles: int = Field(
        0, ge=0, description="First cycles, which play no episodes and learn from replay alone."
    )
    episodes_per_cycle: int = Field(128, ge=1, description="Episodes that the policy plays in each cycle.")
    max_staleness: int = Field(
        2, ge=0, description="In async mode, policy versions that an episode may be behind at its start."
    )
    model: ModelConfig = Field(description="The policy's language model.")
    env: EnvConfig = Field(description="The task.")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="Rollout workers and engines.")
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="The replay service.")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="The learner.")
    demonstrations: DemonstrationConfig = Field(default_factory=DemonstrationConfig, description="Episodes to clone.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Evaluation on held-out seeds.")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints.")
    history: HistoryConfig = Field(default_factory=HistoryConfig, description="Episodes and values kept for people.")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="The Ray cluster.")
    tracking: list[TrackerName] = Field(
        ["tensorboard"],
        description="Tools that receive curves, evaluations and a sample of episodes; tensorboard needs no account.",
    )
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="The metrics endpoint.")

    @model_validator(mode="after")
    def _demonstrations_suffice(self) -> Self:
        clone = self.learner.clone
        if self.demonstrations.episodes or self.demonstrations.files:
            return self
        if clone.steps > 0:
            raise ValueError(
                f"`learner.clone.steps` is {clone.steps} but `demonstrations.episodes` is 0: cloning needs "
                "demonstrations; set demonstrations.episodes or demonstrations.files, or learner.clone.steps=0"
            )
        if self.model.build is not None:
            raise ValueError(
                "`model.build` makes a new model, whose tokenizer is trained on demonstrations, and "
                "`demonstrations.episodes` is 0; set demonstrations.episodes, or model.path to an existing model"
            )
        if self.demonstrations.keep_in_replay:
            raise ValueError(
                "`demonstrations.keep_in_replay` is true but `demonstrations.episodes` is 0: there is nothing to keep"
            )
        return self

    @property
    def algorithm_config(self) -> AlgorithmConfig:
        """The settings of the run's algorithm."""
        return self.learner.section_of(self.algorithm)

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Self:
        if self.offline_cycles > self.cycles:
            raise ValueError(f"`offline_cycles` is {self.offline_cycles}, more than the {self.cycles} of `cycles`")
        if self.offline_cycles and not self.demonstrations.keep_in_replay:
            raise ValueError(
                f"`offline_cycles` is {self.offline_cycles}, but in these cycles replay is empty; set "
                "demonstrations.keep_in_replay=true, with demonstrations"
            )
        if self.algorithm_config.has_v_heads and self.learner.critic.value == "fresh":
            raise ValueError(
                f"`algorithm` {self.algorithm} trains heads of V, and `learner.critic.value` is fresh, which has none; "
                "set learner.critic.value=heads"
            )
        self.algorithm_config.check_run(
            self.algorithm, offline_cycles=self.offline_cycles, episodes_per_cycle=self.episodes_per_cycle
        )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Self:
        lora = self.learner.lora
        if lora is None or self.model.build is None:
            return self
        if lora.adapter is not None:
            raise ValueError(
                f"`learner.lora.adapter` is {lora.adapter!r}, but no adapter fits the new model of `model.build`; set "
                "model.path to the base model of the adapter"
            )
        if self.learner.clone.steps == 0 or lora.clone == "adapter":
            raise ValueError(
                "`model.build` makes an untrained model, on which an adapter learns next to nothing; set "
                "learner.clone.steps above 0 and learner.lora.clone=full, so that the clone is the base, or "
                "learner.lora=null"
            )
        return self

    @model_validator(mode="after")
    def _window_suffices(self) -> Self:
        asked, build = self.rollout.engine.max_model_len, self.model.build
        if build is not None and asked is not None and asked > build.max_positions:
            raise ValueError(
                f"`rollout.engine.max_model_len` is {asked}, more than the {build.max_positions} tokens of "
                "`model.build.max_positions`; lower the first or raise the second"
            )
        window = asked or (build.max_positions if build is not None else None)
        if window is not None and self.rollout.sampling.longest >= window:
            raise ValueError(
                f"{self.rollout.sampling.described()}, which leaves no room for a prompt in a window of {window} "
                "tokens; lower it"
            )
        return self

    @model_validator(mode="after")
    def _inline_fits(self) -> Self:
        """Refuse what one process on a CPU cannot do. Settings of processes that it does not start have no effect."""
        if self.mode != "inline":
            return self
        learner, engine = self.learner, self.rollout.engine
        refused = {
            "learner.ranks": (learner.ranks, learner.ranks > 1, "needs several processes"),
            "learner.use_gpu": (learner.use_gpu, learner.use_gpu, "needs a GPU"),
            "learner.zero_stage": (learner.zero_stage, learner.zero_stage > 0, "divides weights over ranks"),
            "learner.dtype": (learner.dtype, learner.dtype != "float32", "is not the sampler's precision, float32"),
            "rollout.engine.dtype": (
                engine.dtype,
                engine.dtype not in ("auto", "float32"),
                "is not the sampler's precision, float32",
            ),
            "replay.replication": (self.replay.replication, self.replay.replication > 1, "needs several nodes"),
        }
        for key, (value, wrong, why) in refused.items():
            if wrong:
                raise ValueError(
                    f"`mode` is inline, one process on a CPU, and `{key}` is {value}, which {why}; set mode=sync, or "
                    f"change {key}"
                )
        return self

    @model_validator(mode="after")
    def _backend_fits(self) -> Self:
        backend = self.learner.broadcast.backend
        if backend in ("nccl", "ipc") and not (self.learner.use_gpu and self.rollout.gpus_per_worker > 0):
            raise ValueError(
                f"`learner.broadcast.backend` is {backend!r}, which moves weights between GPUs, but "
                f"`learner.use_gpu` is {str(self.learner.use_gpu).lower()} and `rollout.gpus_per_worker` is "
                f"{self.rollout.gpus_per_worker:g}; give both GPUs, or set learner.broadcast.backend=auto"
            )
        return self

    @property
    def broadcast_backend(self) -> Backend:
        """`learner.broadcast.backend`, where auto has become nccl if ranks and engines have whole GPUs."""
        backend = self.learner.broadcast.backend
        whole = self.learner.use_gpu and self.rollout.gpus_per_worker >= 1
        return "nccl" if backend == "auto" and whole else backend
