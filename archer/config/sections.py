"""Sections of the configuration that `archer` owns; every model refuses unknown keys and describes each field."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from learner.critic_config import PathText, StrictConfig

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""Head dimensions that vLLM's attention supports on CPUs and GPUs; with others an engine fails at its first step."""


class TinyModelConfig(StrictConfig):
    """A tokenizer and a model made from scratch, about 1M parameters with the defaults."""

    architecture: Literal["llama", "qwen3"] = Field(
        "llama",
        description="qwen3 normalises queries and keys and begins with larger weights: it learns what the observations "
        "say in fewer steps of cloning.",
    )
    vocab_size: int = Field(1024, ge=300, le=65_536, description="Maximum number of tokens of the tokenizer.")
    hidden_size: int = Field(128, ge=8, description="Width of the residual stream.")
    layers: int = Field(4, ge=1, description="Number of transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; each has hidden_size / heads dimensions.")
    intermediate_size: int = Field(384, ge=8, description="Width of the feed-forward layers.")
    max_positions: int = Field(512, ge=32, description="Context window in tokens.")
    tie_embeddings: bool = Field(False, description="Share the weights of the embedding and the output head.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        size, rest = divmod(self.hidden_size, self.heads)
        if rest or size not in HEAD_SIZES:
            raise ValueError(
                f"hidden_size {self.hidden_size} over heads {self.heads} gives heads of "
                f"{self.hidden_size / self.heads:g} dimensions, but vLLM's attention supports "
                f"{', '.join(map(str, HEAD_SIZES))}; change one of the two"
            )
        return self


class ModelConfig(StrictConfig):
    """The policy's language model: an existing model, or a small model made for the run."""

    path: PathText | None = Field(None, description="Hugging Face name or folder of a causal model; null with `build`.")
    build: TinyModelConfig | None = Field(
        None, description="A tokenizer and a small model to make for this run; null with `path`."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.path is None) == (self.build is None):
            given = "neither is" if self.path is None else "both are"
            raise ValueError(f"needs exactly one of `path` (an existing model) and `build` (a new model); {given} set")
        return self


class EnvConfig(StrictConfig):
    """The task."""

    id: str = Field(description="Environment id (`archer envs` lists the ids), or module:Class of your own.")
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the environment's constructor.")


class DemonstrationConfig(StrictConfig):
    """Episodes that the policy is cloned from before the first cycle: scripted episodes and imported episodes."""

    episodes: int = Field(0, ge=0, description="Number of scripted episodes to play; 0 plays none.")
    files: list[PathText] = Field(
        [], description="Episodes to import: Arrow or Parquet files, or folders of earlier runs."
    )
    skill: float = Field(0.5, ge=0, le=1, description="Skill of the scripted player, from 0 (random) to 1 (best).")
    keep_in_replay: bool = Field(False, description="Also put the demonstrations into replay, for the critic.")


class EvaluationConfig(StrictConfig):
    """Evaluation of the policy on environment seeds that training never uses."""

    episodes: int = Field(256, ge=1, description="Episodes per evaluation.")
    every: int = Field(0, ge=0, description="Cycles between evaluations; 0 evaluates after cloning and at the end.")
    greedy: bool = Field(False, description="Take the most likely token instead of sampling.")


class CheckpointConfig(StrictConfig):
    """The state from which an interrupted run resumes."""

    every: int = Field(1, ge=1, description="Cycles between checkpoints.")
    keep: int = Field(2, ge=1, description="Number of checkpoints kept on disk; older checkpoints are deleted.")
    best: bool = Field(True, description="Keep the policy of the best evaluation in best/, which `archer eval` plays.")


class ClusterConfig(StrictConfig):
    """The Ray cluster that runs the processes of the run."""

    address: str | None = Field(
        None, description="Address of a Ray cluster, or `auto`; null starts a local one unless RAY_ADDRESS is set."
    )
    num_cpus: int | None = Field(
        None, ge=1, description="Logical CPUs of a local cluster; null takes what the run reserves."
    )
    object_store_mb: int = Field(256, ge=80, description="Shared memory of a local cluster, in MiB.")
    start_timeout_s: float = Field(
        180.0, gt=0, description="Seconds within which the cluster must answer and have room for the run."
    )


class MetricsConfig(StrictConfig):
    """The metrics endpoints of the processes, which targets.json in the run folder lists for Prometheus."""

    host: str | None = Field(
        None,
        min_length=1,
        description="Address at which each process serves its metrics; null is 127.0.0.1 on a cluster of one node and "
        "the node's own address on a cluster of several. Beyond 127.0.0.1 a request needs the token in "
        "`runs_dir`/.prometheus/token.",
    )
