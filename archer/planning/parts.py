"""The modules that a learner rank holds, made from the models' configurations without memory for weights.

They are the classes that the learner trains, put together by the same functions, so that which parameters are trained,
frozen or shared is decided in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from archer.planning.counting import COUNTED
from archer.planning.published import with_layers
from archer.planning.stage import Part, Stage
from learner.algorithms.setup import Setup
from learner.models.adapters import twin
from learner.models.critic import Critic, adapters_of, built_shape, critic_on
from learner.models.heads import HeadModule
from learner.models.pretrained import (
    checkpoint_activations,
    hidden_width,
    is_causal,
    layers_of,
    set_passes,
    without_dropout,
    without_noise,
)
from learner.passes.layout import Encoder
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import DTYPES, Precision, in_float32
from learner.passes.separate_encoder import SeparateEncoder

_TEXT_TOKENS = 8
"""Tokens of a privileged text, whose number is not known before the run."""


@dataclass(frozen=True)
class Shapes(Setup):
    """A setup whose models have the shapes of `policy` and `backbone`, and no weights. Use it in a `FakeTensorMode`.

    Attributes:
        policy_config: the policy's configuration.
        backbone_config: that of the critic's backbone; None if the critic starts from the policy or is built.
        layers: number of layers of every model instead of its own.
    """

    policy_config: PreTrainedConfig = field(default_factory=PreTrainedConfig)
    backbone_config: PreTrainedConfig | None = None
    layers: int | None = None

    @property
    def pad_token_id(self) -> int:
        return 0

    @property
    def vocabulary(self) -> int:
        size: int = self.policy_config.get_text_config().vocab_size
        return size

    def text_tokens(self, text: str) -> list[int]:
        return [0] * _TEXT_TOKENS

    def _load(self, path: str, dtype: Precision) -> PreTrainedModel:
        model = _made(AutoModelForCausalLM, self._sized(self.policy_config), dtype)
        set_passes(model, self.config.passes)
        if self.config.activation_checkpointing:
            checkpoint_activations(model)
        return model

    def critic(self) -> tuple[Critic, Encoder]:
        config, critic = self.config, self.config.critic
        if adapters_of(config) is not None and critic.backbone == "policy":
            backbone = layers_of(self.base)
        else:
            backbone = _made(AutoModel, self._backbone(), config.dtype if adapters_of(config) else "float32")
            if config.activation_checkpointing:
                checkpoint_activations(backbone)
        return critic_on(backbone, config, self._observation_head, self.vocabulary), self.critic_encoder()

    def critic_encoder(self) -> Encoder:
        """Return the encoder of the critic's rows; a backbone with its own tokenizer reads the policy's ids."""
        if is_causal(self._backbone()):
            return PackedEncoder(0, self.text_tokens)
        critic = self.config.critic
        return SeparateEncoder(
            0,
            prefix=[0],
            suffix=[0],
            read_first=True,
            max_tokens=critic.max_tokens,
            with_states=critic.q_at == "state_and_action",
        )

    def _backbone(self) -> PreTrainedConfig:
        build = self.config.critic.build
        if build is None:
            return self._sized(self.backbone_config or self.policy_config)
        return self._sized(built_shape(build, self.vocabulary))

    def _observation_head(self, backbone: PreTrainedModel) -> nn.Module:
        if self.config.critic.build is None and self.config.critic.backbone == "policy":
            return HeadModule(self._load("", "float32"))
        return nn.Linear(hidden_width(backbone), self.vocabulary, bias=False)

    def _sized(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return config if self.layers is None else with_layers(config, self.layers)


def _made(kind: Any, config: PreTrainedConfig, dtype: Precision) -> PreTrainedModel:
    special = {} if is_causal(config) else {"add_pooling_layer": False}
    model = kind.from_config(without_dropout(config), dtype=DTYPES[dtype], attn_implementation=COUNTED, **special)
    model.config.use_cache = False  # no pass of the learner has a cache
    return without_noise(model)


def clone_stage(setup: Shapes) -> Stage:
    """Return the stage of cloning, see `learner.stages`."""
    policy = setup.policy(predicts_texts=setup.config.clone.privileged_weight > 0)
    return Stage("cloning", [_trained("policy", policy)])


def cycle_stage(setup: Shapes, algorithm: str) -> Stage:
    """Return the stage of the cycles; its parts follow `learner.algorithms`."""
    config = setup.config
    section = config.section_of(algorithm)
    if section.has_critic:
        critic, _ = setup.critic()
        width = config.actor.baseline_hidden_size if config.actor.token_baseline else None
        target = twin(critic)
        parts = [
            _trained("policy", setup.policy(baseline_width=width)),
            _trained("critic", critic),
            Part("target", _frozen(target), trained=False),
        ]
        needs_reference = setup.retraces_by_clone or config.actor.kl_to_clone > 0
    else:
        parts = [_trained("policy", setup.policy())]
        if algorithm == "ppo":
            parts.append(_trained("value", setup.value_model()))
        needs_reference = getattr(section, "kl_to_clone", 0.0) > 0
    if needs_reference:
        parts.append(Part("reference", _frozen(setup.reference_module()), trained=False))
    return Stage("cycles", parts)


def _trained(name: str, module: nn.Module) -> Part:
    in_float32(module)
    return Part(name, module, trained=True)


def _frozen(module: nn.Module) -> nn.Module:
    """Return the module as `learner.engine.engines.FrozenEngine` holds it."""
    in_float32(module)
    return module.requires_grad_(False).eval()
