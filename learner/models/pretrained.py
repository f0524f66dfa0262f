"""Hugging Face models as the learner loads them: dropout off, attention that fits packed passes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from learner.passes.attention import FLEX, TREE, implementation
from learner.passes.precision import DTYPES, Precision

if TYPE_CHECKING:
    from learner.critic_config import Passes

C = TypeVar("C", bound=PreTrainedConfig)

_ATTENDS = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})
"""The types of layers whose mask says all that they read of other tokens."""

_NOISE = ("drop", "jitter")
"""Parts of the names of settings that add noise to a pass in training mode."""


def without_dropout(config: C) -> C:
    """Set every dropout rate of `config` to 0 and return it. Each model of the learner is made from such a config.

    The learner's log-probabilities must equal the engine's, which has no dropout, and dropout would add noise to the
    critic's targets.
    """
    for name, value in vars(config).copy().items():
        if isinstance(value, PreTrainedConfig):
            without_dropout(value)
        elif _is_noise(name, value):
            setattr(config, name, 0.0)
    return config


def without_noise(model: PreTrainedModel) -> PreTrainedModel:
    """Switch off every dropout and jitter of the modules of `model`, under whatever name, and return it.

    The model is in evaluation mode then; training mode changes nothing (`learner.models.proof`).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).copy().items():
            if _is_noise(name, value):
                setattr(module, name, 0.0)
    return model.eval()


def _is_noise(name: str, value: Any) -> bool:
    return isinstance(value, float) and any(part in name for part in _NOISE)


def load_causal_model(
    path: str | Path,
    dtype: Precision,
    *,
    activation_checkpointing: bool = False,
    passes: Passes = "auto",
    config: PreTrainedConfig | None = None,
) -> PreTrainedModel:
    """Return the causal model at `path`, a folder or Hugging Face name, with weights of `dtype`.

    Args:
        passes: whether the model runs packed passes or separate sequences, see `packs`.
        config: instead of the model's own.
    """
    if config is None:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    config = without_dropout(config)
    model = AutoModelForCausalLM.from_pretrained(
        str(path), config=config, dtype=DTYPES[dtype], attn_implementation=attention_of(config)
    )
    set_passes(without_noise(model), passes)
    if activation_checkpointing:
        checkpoint_activations(model)
    return model


def attention_of(config: PreTrainedConfig) -> str:
    """Return the `attn_implementation` with which a causal model of this configuration trains.

    Families whose attention cannot be replaced run their own, over a dense mask.
    """
    family = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if family is None:
        return implementation()
    if not family._can_set_attn_implementation():
        return "eager"
    return TREE if implementation() == FLEX and not family._supports_flex_attn else implementation()


def layers_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the part of a causal model that gives its last hidden states; a model without a head is this part."""
    if model.base_model is not model:
        found: PreTrainedModel = model.base_model
        return found
    # Llama 4 names another attribute as its base model than the one it has.
    return next((part for part in model.children() if isinstance(part, PreTrainedModel)), model)


def set_passes(model: PreTrainedModel, passes: Passes) -> None:
    """Let the layers of `model` run packed passes or separate sequences; "auto" decides by `unpackable`."""
    layers: Any = layers_of(model)
    layers.packs = passes == "packed" or (passes == "auto" and unpackable(model) is None)


def packs(backbone: PreTrainedModel) -> bool:
    """Return whether `backbone` runs packed passes: what `set_passes` has set, by default "auto"."""
    layers: Any = layers_of(backbone)
    if "packs" not in vars(layers):
        set_passes(backbone, "auto")
    return bool(layers.packs)


def unpackable(model: PreTrainedModel) -> str | None:
    """Return why the layers of `model` cannot attend along a tree, as far as its configuration says it, else None.

    `learner.models.proof` finds what a configuration does not say.
    """
    config = model.config.get_text_config()
    kinds = dict.fromkeys(kind for kind in getattr(config, "layer_types", None) or () if kind not in _ATTENDS)
    if kinds:
        return f"its {' and '.join(kinds)} layers carry a state from token to token"
    if model._is_stateful:
        return "its layers carry a state from token to token"
    if getattr(config, "alibi", False):
        return "ALiBi counts columns, not positions"
    if "position_ids" not in inspect.signature(type(layers_of(model)).forward).parameters:
        return "its layers take no positions"
    return None


def hidden_width(model: PreTrainedModel) -> int:
    """Return the width of the last hidden states of `model`."""
    config = model.config.get_text_config()
    # OPT's smallest models project the hidden states to the width of the embedding.
    return int(getattr(config, "word_embed_proj_dim", None) or config.hidden_size)


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
