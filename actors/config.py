"""Settings of the rollout workers and their engines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


_NO_CUTS = (
    "actions are sampled from the whole distribution, whose log-probabilities are what the learner computes; lower "
    "rollout.sampling.temperature instead"
)


class SamplingConfig(_Config):
    """How actions are drawn. Top-p and top-k are not offered: the learner's log-probabilities know no such cut."""

    # `archer.config` answers these keys, which a user may expect here, with the reason.
    model_config = ConfigDict(json_schema_extra={"not_offered": dict.fromkeys(("top_p", "top_k", "min_p"), _NO_CUTS)})

    temperature: float = Field(1.0, gt=0, description="Temperature of sampling; greedy play is asked for per call.")
    max_tokens: int = Field(32, ge=1, description="Most tokens that one action may have, its stop token included.")


class EngineConfig(_Config):
    """One vLLM engine."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision of the engine's weights and activations; auto takes the model's own."
    )
    max_model_len: int | None = Field(
        None, ge=2, description="Longest episode in tokens; null takes the model's own window."
    )
    max_num_seqs: int = Field(256, ge=1, description="Sequences that the engine decodes at once.")
    max_num_batched_tokens: int = Field(8192, ge=64, description="Tokens that one engine step may process.")
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="Memory for cached keys and values; null means 1 GiB on a CPU, gpu_memory_utilization on a GPU.",
    )
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="Share of a GPU's memory that the engine takes where kv_cache_gib is null."
    )
    block_size: int | None = Field(
        None, ge=16, description="Tokens per cached block, the grain at which prefixes are shared; null lets us choose."
    )
    enforce_eager: bool = Field(True, description="Run without compiled graphs: starts sooner, decodes slower on GPUs.")
    tensor_parallel: int = Field(1, ge=1, description="GPUs over which one engine's weights are split.")
    threads: int = Field(1, ge=1, description="CPU threads of an engine on a CPU.")
    weight_transfer: Literal["shm", "nccl", "ipc"] = Field(
        "shm", description="How new weights arrive; the run sets it to the learner's broadcast backend."
    )
    startup_timeout_s: float = Field(300.0, gt=0, description="Seconds that an engine may take to come up.")


class RolloutConfig(_Config):
    """The pool of rollout workers."""

    workers: int = Field(1, ge=1, description="Rollout workers, each with one engine; the pool can grow and shrink.")
    episodes_at_once: int = Field(64, ge=1, description="Episodes that one worker plays at the same time.")
    renderer: Literal["auto", "plain", "chat"] = Field(
        "auto",
        description="plain: lines of text; chat: the tokenizer's chat template; auto: chat where there is a template.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How actions are drawn.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="The engine of each worker.")
    cpus_per_worker: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each worker.")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs that Ray reserves for each worker.")
    env_timeout_s: float = Field(60.0, gt=0, description="Seconds that an environment may take for one turn.")
    env_failure_limit: int = Field(
        5, ge=1, description="Failed episodes in a row, on one worker, after which the run stops with their error."
    )
    request_timeout_s: float = Field(
        600.0, gt=0, description="Seconds after which an episode or a request for actions counts as hung."
    )
    restart_limit: int = Field(
        20, ge=0, description="Restarts of dead workers, all together, after which the run stops."
    )
