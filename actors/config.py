"""Configuration of the rollout workers and their engines."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from buffer.custom_resources import CustomResources

RendererKind = Literal["auto", "plain", "chat"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


_NO_CUTS = (
    "actions are sampled from the whole distribution, whose log-probabilities the learner computes; lower "
    "rollout.sampling.temperature instead"
)


class SamplingConfig(_Config):
    """Sampling of actions from the whole distribution."""

    # `archer.config` answers these keys, which a user may expect here, with the reason.
    model_config = ConfigDict(json_schema_extra={"not_offered": dict.fromkeys(("top_p", "top_k", "min_p"), _NO_CUTS)})

    temperature: float = Field(1.0, gt=0, description="Sampling temperature. Greedy evaluation ignores it.")
    max_tokens: int = Field(
        32,
        ge=1,
        description="Maximum number of tokens of an action, stop token included; with thought_tokens, of the "
        "answer behind a thought.",
    )
    thought_tokens: int | None = Field(
        None,
        ge=1,
        description="Maximum number of tokens of a thought, its end marker included; max_tokens then counts behind it. "
        "An action whose thought does not end within it is cut there. null: the thought counts in max_tokens.",
    )

    @property
    def longest(self) -> int:
        """The maximum number of tokens of an action, with its thought."""
        return self.max_tokens + (self.thought_tokens or 0)

    def described(self) -> str:
        """Return the settings that `longest` adds up, as the beginning of a sentence."""
        thought = "" if self.thought_tokens is None else f" beside `thought_tokens` {self.thought_tokens}"
        return f"`rollout.sampling.max_tokens` is {self.max_tokens}{thought}"


class EngineConfig(_Config):
    """Configuration of one vLLM engine."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision of weights and activations; auto uses the model's own."
    )
    max_model_len: int | None = Field(
        None, ge=2, description="Context window in tokens, the maximum length of an episode; null uses the model's own."
    )
    max_num_seqs: int = Field(256, ge=1, description="Maximum number of sequences that the engine decodes at once.")
    max_num_batched_tokens: int = Field(8192, ge=64, description="Maximum number of tokens per engine step.")
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="Memory of the key-value cache in GiB; null means 1 on a CPU, gpu_memory_utilization on a GPU.",
    )
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="Fraction of a GPU's memory that the engine uses if kv_cache_gib is null."
    )
    block_size: int | None = Field(
        None,
        ge=16,
        description="Tokens per block of the key-value cache, the unit in which prefixes are shared; null means 32 on "
        "a CPU and vLLM's default on a GPU.",
    )
    enforce_eager: bool = Field(
        True, description="Run without compiled graphs: the engine starts faster and, on a GPU, decodes slower."
    )
    tensor_parallel: int = Field(1, ge=1, description="Number of GPUs over which an engine's weights are split.")
    threads: int = Field(1, ge=1, description="CPU threads of an engine that runs on a CPU.")
    weight_transfer: Literal["shm", "nccl", "ipc"] = Field(
        "shm",
        description="Transport of weights from the learner, which a run sets: shm from this host's memory, where a "
        "stream from another host ends too.",
    )
    startup_timeout_s: float = Field(300.0, gt=0, description="Maximum time in seconds for an engine to start.")


class WorkerRange(_Config):
    """Bounds of a number of workers that follows what the cluster can place."""

    min: int = Field(
        1, ge=1, description="Workers that must have room before the run starts, and that it never retires."
    )
    max: int = Field(ge=1, description="Most workers.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"has min {self.min}, more than max {self.max}; swap them")
        return self


def _kind_of_workers(value: Any) -> str:
    return "[range]" if isinstance(value, dict | WorkerRange) else "[number]"


class RolloutConfig(_Config):
    """Configuration of the pool of rollout workers."""

    workers: Annotated[
        Annotated[int, Field(ge=1), Tag("[number]")] | Annotated[WorkerRange, Tag("[range]")],
        Discriminator(_kind_of_workers),
    ] = Field(
        1,
        description="Number of rollout workers, one engine each; {min: 1, max: 8} in place of a number follows what "
        "the cluster can place.",
    )
    episodes_at_once: int = Field(64, ge=1, description="Number of episodes that one worker plays concurrently.")
    renderer: RendererKind = Field(
        "auto",
        description="plain: lines of text; chat: the tokenizer's chat template; auto: chat if there is a template.",
    )
    tools: Literal["auto", "native", "json"] = Field(
        "auto",
        description="How the policy calls the tools of an environment. native: in the format of its chat template; "
        "json: by lines of JSON, as base models do; auto: native if the template and a parser allow it.",
    )
    tool_parser: str = Field(
        "auto",
        min_length=1,
        description="vLLM's parser of native tool calls, by name; auto: the one that reads what the template writes.",
    )
    stop_text: str | None = Field(
        None,
        min_length=1,
        description="Text that ends actions and lines, for base models whose tokenizer has no token for the newline.",
    )
    thoughts: Literal["keep", "drop"] = Field(
        "keep",
        description="What later turns see of a thought. keep: all that was written stays as it is; drop: each turn "
        "renders the history again without earlier thoughts, as these models are served.",
    )
    thought_markers: tuple[str, str] | None = Field(
        None,
        description="Texts at the beginning and the end of a thought; null: those of published models that the chat "
        "template or the tokenizer has.",
    )
    system_prompt: str | None = Field(
        None, description="Text of a system message before the first observation of each episode, for chat models."
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="Sampling of actions.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="The engine of each worker.")
    cpus_per_worker: float = Field(1.0, ge=0, description="Number of CPUs that Ray reserves for each worker.")
    gpus_per_worker: float = Field(0.0, ge=0, description="Number of GPUs that Ray reserves for each worker.")
    resources: CustomResources = Field(
        {}, description="Custom resources of Ray that each worker reserves, which keep workers on some nodes."
    )
    env_timeout_s: float = Field(60.0, gt=0, description="Maximum time in seconds of one environment step.")
    env_failure_limit: int = Field(
        5, ge=1, description="Number of consecutive failed episodes of one worker after which the run stops."
    )
    request_timeout_s: float = Field(
        600.0, gt=0, description="Time in seconds after which an episode or a request for actions counts as hung."
    )
    restart_limit: int = Field(
        20, ge=0, description="Number of worker restarts, over all workers, after which the run stops."
    )

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows the cluster."""
        return isinstance(self.workers, WorkerRange)

    @property
    def least_workers(self) -> int:
        """The number of workers with which a run starts, and below which it never goes."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def most_workers(self) -> int:
        """The largest number of workers."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers

    @model_validator(mode="after")
    def _chat_settings_fit(self) -> Self:
        if self.tools == "json" and self.tool_parser != "auto":
            raise ValueError(
                f"`tool_parser` is {self.tool_parser!r}, but with `tools` json nothing is parsed; set tools=native, or "
                "tool_parser=auto"
            )
        if self.renderer != "plain":
            return self
        if self.tools == "native" or self.tool_parser != "auto":
            raise ValueError(
                "`renderer` is plain, whose policy calls tools by lines of JSON, but native tool calls are asked for; "
                "set renderer=chat, or tools=json and tool_parser=auto"
            )
        if reason := self.beyond_plain():
            raise ValueError(f"{reason}, or rollout.renderer=chat")
        return self

    def beyond_plain(self) -> str | None:
        """Return which setting the plain renderer cannot follow, and what to set instead; None if it follows all."""
        if self.thoughts == "drop" or self.sampling.thought_tokens is not None:
            return (
                "`rollout.thoughts` is drop or `rollout.sampling.thought_tokens` is set, but the plain renderer knows "
                "no thoughts; set rollout.thoughts=keep and rollout.sampling.thought_tokens=null"
            )
        if self.system_prompt is not None:
            return (
                "`rollout.system_prompt` is set, but the plain renderer has no system message; set "
                "rollout.system_prompt=null"
            )
        return None
