"""Hugging Face models as the learner loads them: dropout off, attention that fits packed passes."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from learner.passes.attention import implementation
from learner.passes.precision import DTYPES, Precision

C = TypeVar("C", bound=PreTrainedConfig)


def without_dropout(config: C) -> C:
    """Set every dropout rate of `config` to 0 and return it. Each model of the learner is made from such a config.

    The learner's log-probabilities must equal the engine's, which has no dropout, and dropout would add noise to the
    critic's targets.
    """
    for name, value in vars(config).copy().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def load_causal_model(path: str | Path, dtype: Precision, *, activation_checkpointing: bool = False) -> PreTrainedModel:
    """Return the causal model at `path`, a folder or Hugging Face name, with weights of `dtype`."""
    model = AutoModelForCausalLM.from_pretrained(
        str(path),
        config=without_dropout(AutoConfig.from_pretrained(str(path))),
        dtype=DTYPES[dtype],
        attn_implementation=implementation(),
    )
    if activation_checkpointing:
        checkpoint_activations(model)
    return model


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Let `model` keep only the inputs of its blocks, and recompute the other activations in the backward pass.

    transformers recomputes only in training mode. That mode changes nothing else, because dropout is off.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()


def is_causal(config: PreTrainedConfig) -> bool:
    """Return whether a model with this configuration attends from left to right only."""
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not (
        hasattr(config, "is_decoder") and config.is_decoder is False and hasattr(config, "type_vocab_size")
    )
