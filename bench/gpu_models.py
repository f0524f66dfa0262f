"""The models, settings and rows of `gpu.py`: random weights in the shapes of published models, and nothing to load.

The settings have the names and the defaults of `learner.config.LearnerConfig`, of which they are the fields that a step
and the memory plan read. They are plain classes because a machine that is lent with a GPU may have no pydantic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from archer.planning.published import SHAPES
from bench.random_rows import PAD, random_row
from learner.models.adapters import twin, with_adapter
from learner.models.critic import Critic
from learner.models.policy import Policy
from learner.models.pretrained import attention_of, checkpoint_activations, layers_of, without_dropout, without_noise
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import DTYPES, Precision
from learner.passes.rows import Row, deal

OBSERVATION, ACTION = (40, 80), (20, 40)
"""Fewest and most tokens of the texts: a turn with its fresh action takes 120 tokens on average."""

_QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
_TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "max_position_embeddings": 4096,
}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("qwen2", _TINY),
    **{size: SHAPES[f"Qwen/Qwen2.5-{size}"] for size in ("0.5B", "1.5B", "7B")},
    "4B": ("qwen3", _QWEN3_4B),
}
"""transformers' model type and sizes: Qwen2.5 of 0.5B, 1.5B and 7B, and Qwen3 of 4B."""

Kind = Literal["policy", "critic"]


@dataclass(frozen=True)
class Adapter:
    """`learner.lora`."""

    rank: int = 16
    alpha: int = 32
    targets: str = "all-linear"


@dataclass(frozen=True)
class CriticSettings:
    """`learner.critic`, in which whole episodes are drawn."""

    unit: str = "episode"
    heads: int = 2
    head_hidden_size: int = 256
    value: str = "heads"
    fresh_per_state: int = 1
    gamma: float = 0.95
    tau: float = 0.1
    n_step: int = 1
    lambda_turn: float | None = None
    observation_weight: float = 0.0
    privileged_weight: float = 0.0


@dataclass(frozen=True)
class ActorSettings:
    """`learner.actor`, in which whole episodes are drawn."""

    unit: str = "episode"
    fresh_per_state: int = 1
    importance_cap: float = 1.0
    clip: float | None = None
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Settings:
    """The settings of one case."""

    dtype: Precision = "float32"
    lora: Adapter | None = None
    activation_checkpointing: bool = False
    zero_stage: int = 0
    ranks: int = 1
    optimizer_offload: bool = False
    critic: CriticSettings = field(default_factory=CriticSettings)
    actor: ActorSettings = field(default_factory=ActorSettings)


def shape_of(size: str) -> PreTrainedConfig:
    """Return the configuration of a model of `SIZES`."""
    kind, sizes = SIZES[size]
    return without_dropout(AutoConfig.for_model(kind, **sizes))


def made_base(
    config: PreTrainedConfig, settings: Settings, kind: Kind, attention: str | None = None
) -> PreTrainedModel:
    """Return the model under the part `kind`, with random weights on the default device.

    With adapters it is the frozen causal model that all parts share, in `settings.dtype`; else the model to train, in
    float32.

    Args:
        attention: instead of the attention with which a model of this configuration trains.
    """
    make: Any = AutoModelForCausalLM if settings.lora is not None or kind == "policy" else AutoModel
    dtype = DTYPES[settings.dtype if settings.lora is not None else "float32"]
    model = make.from_config(config, dtype=dtype, attn_implementation=attention or attention_of(config))
    model.config.use_cache = False  # no pass of the learner has a cache
    without_noise(model)
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    return model


def made_parts(base: PreTrainedModel, settings: Settings, kind: Kind) -> dict[str, torch.nn.Module]:
    """Return the modules that the step of `kind` needs: the policy, or the critic and its target network."""
    if kind == "policy":
        model = base if settings.lora is None else with_adapter(base, settings.lora)  # type: ignore[arg-type]
        return {"policy": Policy(model, 1.0, settings.dtype)}
    backbone = base if settings.lora is None else with_adapter(layers_of(base), settings.lora)  # type: ignore[arg-type]
    critic = Critic(backbone, settings.critic.head_hidden_size, settings.critic.heads, precision=settings.dtype)
    critic.to(next(base.parameters()).device)
    return {"critic": critic, "target": twin(critic).requires_grad_(False).eval()}


def plan_setup(settings: Settings) -> Any:
    """Return what `archer.planning.passes` reads of a setup."""
    return SimpleNamespace(config=settings, critic_encoder=lambda: PackedEncoder(PAD), text_tokens=None)


def random_micro_batches(
    vocabulary: int, *, tokens: int, turns: int, micro_tokens: int, seed: int = 0
) -> list[list[Row]]:
    """Return episodes of about `tokens` tokens in all, with their fresh actions, in micro-batches as the learner's."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    while sum(row.size for row in rows) < tokens:
        rows.append(random_row(rng, vocabulary, turns, observation=OBSERVATION, action=ACTION, fresh=1))
    if len(rows) > 1 and sum(row.size for row in rows) - tokens > rows[-1].size / 2:
        rows.pop()
    each = max(1, round(len(rows) * micro_tokens / sum(row.size for row in rows)))
    return deal(rows, 1, each)[0]


def samples_of(micro_batches: Sequence[Sequence[Row]]) -> int:
    """Return the number of samples, which are turns."""
    return sum(len(row.turns) for rows in micro_batches for row in rows)
