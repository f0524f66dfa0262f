"""The models that an algorithm starts from, loaded by the run's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from learner.config import LearnerConfig
from learner.engine.engines import FrozenEngine
from learner.models.adapter_files import Base, fingerprint, load_adapter
from learner.models.adapters import share, with_adapter
from learner.models.critic import Critic, build_critic
from learner.models.policy import Policy, TokenValue
from learner.models.pretrained import layers_of, load_causal_model
from learner.models.vocabulary import pad_token_id, text_tokens, vocabulary_size
from learner.passes.layout import Encoder
from learner.passes.precision import Precision
from learner.protocols import Scorer


@dataclass(frozen=True)
class Setup:
    """The starting models of a run and its settings.

    Attributes, beside those of the same names in `TrainArgs`:
        reference: folder or name of the policy that learning started from. It is the reference of `kl_to_clone` and the
            base of adapters.
        demonstrations_in_replay: whether replay holds episodes that no policy wrote.
        window: number of policy versions by which a cycle's own episodes may be behind; 0 in sync mode.
    """

    model: str
    reference: str
    tokenizer: PreTrainedTokenizerBase
    config: LearnerConfig
    temperature: float
    window: int = 0
    offline_cycles: int = 0
    scorer: Scorer | None = None
    demonstrations_in_replay: bool = False

    @property
    def pad_token_id(self) -> int:
        """The token id that fills sequences."""
        return pad_token_id(self.tokenizer)

    @property
    def retraces_by_clone(self) -> bool:
        """Whether Retrace needs the clone, for the episodes of replay that no policy wrote."""
        critic = self.config.critic
        return critic.retrace is not None and self.demonstrations_in_replay and critic.unwritten == "clone"

    @cached_property
    def base(self) -> PreTrainedModel:
        """The frozen model under all adapters, loaded once."""
        return self._load(self.reference, self.config.dtype).requires_grad_(False)

    @cached_property
    def base_record(self) -> Base:
        """The identity of the base. Read it before an engine partitions the base."""
        return Base(self.reference, fingerprint(self.base))

    @property
    def vocabulary(self) -> int:
        """The number of token ids that the policy can write."""
        return vocabulary_size(self.model, self.tokenizer)

    @cached_property
    def _text_tokens(self) -> Callable[[str], list[int]]:
        return text_tokens(self.tokenizer)

    def text_tokens(self, text: str) -> list[int]:
        """Return the token ids of a privileged text."""
        return self._text_tokens(text)

    def policy(self, *, baseline_width: int | None = None, predicts_texts: bool = False) -> Policy:
        """Return the policy to train, with a token-level baseline of this width if given.

        With `predicts_texts` it has a head that predicts what the environment hides.
        """
        return Policy(
            self.policy_model(),
            self.temperature,
            self.config.dtype,
            baseline_width=baseline_width,
            privileged_tokens=self.vocabulary if predicts_texts else None,
        )

    def policy_model(self) -> PreTrainedModel:
        """Return the policy's language model, the same on every rank."""
        lora = self.config.lora
        if lora is None:
            return self._load(self.model, "float32")
        model = with_adapter(self.base, lora)
        if lora.adapter is not None:
            load_adapter(model, Path(lora.adapter).expanduser(), lora, self.base_record)
        return model

    def value_model(self) -> TokenValue:
        """Return a value function of token states, on a copy of the policy's backbone."""
        lora, config = self.config.lora, self.config
        model = self._load(self.model, "float32") if lora is None else with_adapter(self.base, lora)
        return TokenValue(model, config.ppo.value_hidden_size, config.dtype)

    def critic(self) -> tuple[Critic, Encoder]:
        """Return a new critic and the encoder that lays out rows for it."""
        if self.config.lora is None:
            return build_critic(self.config, self.model, self.tokenizer)
        return build_critic(self.config, self.reference, self.tokenizer, layers_of(self.base))

    def reference_policy(self, device: torch.device) -> FrozenEngine:
        """Return the frozen policy that learning started from, evaluated on `device`."""
        return FrozenEngine(self.reference_module(), self.config, device)

    def reference_module(self) -> Policy:
        """Return the frozen policy that learning started from: with adapters the base, or `lora.adapter` on it."""
        config = self.config
        if config.lora is None:
            model = self._load(self.reference, config.dtype)
        else:
            model = share(self.base) if config.lora.adapter is None else self.policy_model()
        return Policy(model.requires_grad_(False), self.temperature, config.dtype)

    def _load(self, path: str, dtype: Precision) -> PreTrainedModel:
        config = self.config
        return load_causal_model(
            path, dtype, activation_checkpointing=config.activation_checkpointing, passes=config.passes
        )
