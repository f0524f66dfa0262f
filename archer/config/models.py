"""The configuration of a run: what this room owns, and the composition of what the other rooms own.

Every model refuses unknown keys and carries one sentence per field. `archer.config.loading` reads files and overrides
into these models and turns what is wrong into sentences; nothing here touches the disk.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from actors.config import RolloutConfig
from buffer.config import ReplayConfig
from learner.config import AlgorithmName, LearnerConfig


class StrictModel(BaseModel):
    """Unknown keys are refused; values stay checked when a field is set later."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


ON_POLICY = ("ppo", "reinforce", "grpo")
"""Algorithms that learn from nothing but the cycle's own episodes."""

WITH_CRITIC = ("archer", "archer_offline", "chai")
"""Algorithms that learn an utterance-level critic."""

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""Dimensions of a head that vLLM's attention takes on CPUs and GPUs; with others an engine dies at its first step."""


class TinyModelConfig(StrictModel):
    """A tokenizer and a Llama made from scratch, about 1M parameters at the defaults."""

    vocab_size: int = Field(
        1024, ge=300, le=65_536, description="Most entries of the byte-level tokenizer trained on the texts."
    )
    hidden_size: int = Field(128, ge=8, description="Width of the residual stream.")
    layers: int = Field(4, ge=1, description="Number of transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; hidden_size over heads is the size of a head.")
    intermediate_size: int = Field(384, ge=8, description="Width of the feed-forward layers.")
    max_positions: int = Field(512, ge=32, description="Context window in tokens.")
    tie_embeddings: bool = Field(False, description="Share the weights of the embedding and the output head.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        size, rest = divmod(self.hidden_size, self.heads)
        if rest or size not in HEAD_SIZES:
            raise ValueError(
                f"hidden_size {self.hidden_size} over heads {self.heads} gives heads of "
                f"{self.hidden_size / self.heads:g} dimensions, "
                f"and vLLM's attention takes {', '.join(map(str, HEAD_SIZES))}; change one of the two"
            )
        return self


class ModelConfig(StrictModel):
    """The policy's language model: an existing one, or a small one made for the run."""

    path: str | None = Field(
        None, description="Hugging Face name or local folder of any causal language model; null with `build`."
    )
    build: TinyModelConfig | None = Field(
        None, description="Make a tokenizer and a small model from scratch for this run; null with `path`."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.path is None) == (self.build is None):
            given = "neither is" if self.path is None else "both are"
            raise ValueError(
                f"needs exactly one of `path` (a model that exists) and `build` (one to make); {given} set"
            )
        return self


class EnvConfig(StrictModel):
    """The task."""

    id: str = Field(description="Environment id (`archer envs` lists them) or module:Class of your own.")
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for the environment's constructor."
    )


class DemonstrationConfig(StrictModel):
    """Episodes that the policy is cloned from before it learns by itself: scripted ones, and ones from elsewhere."""

    episodes: int = Field(0, ge=0, description="Scripted episodes to write; 0 for none.")
    files: list[str] = Field(
        default_factory=list,
        description="Episodes to import: Arrow or Parquet files in the replay schema, or folders of earlier runs.",
    )
    skill: float = Field(
        0.5, ge=0, le=1, description="Skill of the scripted demonstrator, from random (0) to its best play (1)."
    )
    keep_in_replay: bool = Field(
        False, description="Put the demonstrations into replay, where the critic learns from them."
    )


class EvaluationConfig(StrictModel):
    """Measuring the policy on seeds that training never sees."""

    episodes: int = Field(256, ge=1, description="Fresh episodes per evaluation.")
    every: int = Field(0, ge=0, description="Cycles between evaluations; 0 evaluates the clone and the end only.")
    greedy: bool = Field(False, description="Take the likeliest token instead of sampling.")


class CheckpointConfig(StrictModel):
    """What a killed run resumes from."""

    every: int = Field(1, ge=1, description="Cycles between checkpoints.")
    keep: int = Field(2, ge=1, description="Newest checkpoints kept on disk.")


class ClusterConfig(StrictModel):
    """The Ray cluster that the run's processes live on."""

    address: str | None = Field(
        None, description="Address of a running Ray cluster, or `auto`; null starts one here unless RAY_ADDRESS is set."
    )
    num_cpus: int | None = Field(
        None, ge=1, description="Logical CPUs of a cluster started here; null counts what the run's processes reserve."
    )
    object_store_mb: int = Field(256, ge=80, description="Shared memory of a cluster started here, in MiB.")
    start_timeout_s: float = Field(180.0, gt=0, description="Seconds that each process of the run may take to come up.")


class MetricsConfig(StrictModel):
    """Where Prometheus finds the run's metrics."""

    host: str = Field("127.0.0.1", description="Address the service-discovery endpoint listens on; 0.0.0.0 for all.")
    port: int = Field(
        9464, ge=0, le=65_535, description="Port of the service-discovery endpoint; 0 takes any free one."
    )


class RunConfig(StrictModel):
    """Everything that a run needs to know; the resolved form is written into the run folder."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name of the run and of its folder."
    )
    runs_dir: str = Field("runs", min_length=1, description="Folder in which the run's own folder is made.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random stream of the run.")
    algorithm: AlgorithmName = Field(
        "archer", description="How the policy learns after cloning; each has its section under `learner`."
    )
    mode: Literal["sync", "async"] = Field(
        "sync", description="sync: rollouts and learning take turns; async: rollouts go on while the learner learns."
    )
    cycles: int = Field(10, ge=0, description="Learner cycles; 0 ends after cloning and its evaluation.")
    offline_cycles: int = Field(
        0, ge=0, description="First cycles that play nothing and learn from what replay holds already."
    )
    episodes_per_cycle: int = Field(128, ge=1, description="Episodes that the policy plays per cycle.")
    max_staleness: int = Field(
        2, ge=0, description="In async mode, policy versions by which an episode may be behind when it starts."
    )
    model: ModelConfig = Field(description="The policy's language model.")
    env: EnvConfig = Field(description="The task.")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="Rollout workers and engines.")
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="The replay service.")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="The learner.")
    demonstrations: DemonstrationConfig = Field(
        default_factory=DemonstrationConfig, description="Scripted episodes to clone."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Measuring on held-out seeds.")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="Checkpoints.")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="The Ray cluster.")
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
                "`model.build` makes a model that knows nothing, and `demonstrations.episodes` is 0: its tokenizer is "
                "trained on demonstrations; set demonstrations.episodes, or model.path to a model that exists"
            )
        if self.demonstrations.keep_in_replay:
            raise ValueError(
                "`demonstrations.keep_in_replay` is true but `demonstrations.episodes` is 0: there is nothing to keep"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Self:
        learner = self.learner
        if self.offline_cycles > self.cycles:
            raise ValueError(f"`offline_cycles` is {self.offline_cycles}, more than the {self.cycles} of `cycles`")
        if self.offline_cycles and not self.demonstrations.keep_in_replay:
            raise ValueError(
                f"`offline_cycles` is {self.offline_cycles} but replay is empty then: set "
                "demonstrations.keep_in_replay=true with some demonstrations"
            )
        if self.offline_cycles and self.algorithm in ON_POLICY:
            raise ValueError(
                f"`algorithm` {self.algorithm} learns from the cycle's own episodes, and in the first "
                f"{self.offline_cycles} `offline_cycles` there are none; set offline_cycles=0"
            )
        if self.algorithm == "bc" and learner.clone.steps == 0:
            raise ValueError("`algorithm` bc only clones, and `learner.clone.steps` is 0; set learner.clone.steps")
        if self.algorithm == "grpo" and self.episodes_per_cycle % learner.grpo.group:
            raise ValueError(
                f"`episodes_per_cycle` {self.episodes_per_cycle} is no multiple of `learner.grpo.group` "
                f"{learner.grpo.group}: each environment seed is played by a whole group"
            )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Self:
        lora = self.learner.lora
        if lora is None or self.model.build is None:
            return self
        if lora.adapter is not None:
            raise ValueError(
                f"`learner.lora.adapter` is {lora.adapter!r}, and `model.build` makes a new model, which no adapter "
                "was made for; set model.path to the adapter's base"
            )
        if self.learner.clone.steps == 0 or lora.clone == "adapter":
            raise ValueError(
                "`model.build` makes a model that knows nothing, and an adapter on it would learn next to nothing: set "
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
                "`model.build.max_positions`; lower the one or raise the other"
            )
        window = asked or (build.max_positions if build is not None else None)
        if window is not None and self.rollout.sampling.max_tokens >= window:
            raise ValueError(
                f"`rollout.sampling.max_tokens` is {self.rollout.sampling.max_tokens}, which leaves no room for a "
                f"prompt in a window of {window} tokens; lower it"
            )
        return self

    @model_validator(mode="after")
    def _backend_fits(self) -> Self:
        backend = self.learner.broadcast.backend
        if backend != "shm" and not (self.learner.use_gpu and self.rollout.gpus_per_worker > 0):
            raise ValueError(
                f"`learner.broadcast.backend` is {backend!r}, which moves weights between GPUs, but "
                f"`learner.use_gpu` is {str(self.learner.use_gpu).lower()} and `rollout.gpus_per_worker` is "
                f"{self.rollout.gpus_per_worker:g}; give both GPUs, or set learner.broadcast.backend=shm"
            )
        return self
