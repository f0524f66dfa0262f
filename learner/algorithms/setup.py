"""What algorithms are made from: the models that a run starts with, loaded as its settings say."""

from __future__ import annotations

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
from learner.models.pretrained import load_causal_model
from learner.models.vocabulary import pad_token_id
from learner.passes.layout import Encoder
from learner.passes.precision import Precision
from learner.protocols import Scorer


@dataclass(frozen=True)
class Setup:
    """Where the policy starts from, and the settings.

    Attributes:
        model: folder or name of the policy's model; on resume, of the checkpoint's policy.
        reference: folder or name of the policy that learning started from, which `kl_to_clone` keeps close to and
            adapters are added to.
        temperature: at which the engines sample.
        window: policy versions by which a cycle's own episodes may be old: 0 where rollouts and learning take turns.
        offline_cycles: first cycles that learn from what replay holds and play nothing.
        scorer: the actor through which a critic picks what is played, where the run has one.
    """

    model: str
    reference: str
    tokenizer: PreTrainedTokenizerBase
    config: LearnerConfig
    temperature: float
    window: int = 0
    offline_cycles: int = 0
    scorer: Scorer | None = None

    @property
    def pad_token_id(self) -> int:
        return pad_token_id(self.tokenizer)

    @cached_property
    def base(self) -> PreTrainedModel:
        """The frozen model under all adapters, held once."""
        return self._load(self.reference, self.config.dtype).requires_grad_(False)

    @cached_property
    def base_record(self) -> Base:
        """Which base that is; asked for before an engine partitions it."""
        return Base(self.reference, fingerprint(self.base))

    def policy(self) -> Policy:
        """What an on-policy method trains."""
        return Policy(self.policy_model(), self.temperature, self.config.dtype)

    def policy_model(self) -> PreTrainedModel:
        """The policy's language model, on every rank the same."""
        lora = self.config.lora
        if lora is None:
            return self._load(self.model, "float32")
        model = with_adapter(self.base, lora)
        if lora.adapter is not None:
            load_adapter(model, Path(lora.adapter).expanduser(), lora, self.base_record)
        return model

    def value_model(self) -> TokenValue:
        """A value of each token's state, on a backbone that starts as the policy's."""
        lora, config = self.config.lora, self.config
        model = self._load(self.model, "float32") if lora is None else with_adapter(self.base, lora)
        return TokenValue(model, config.ppo.value_hidden_size, config.dtype)

    def critic(self) -> tuple[Critic, Encoder]:
        """Return a new critic and the encoder that lays out rows for it."""
        if self.config.lora is None:
            return build_critic(self.config, self.model, self.tokenizer)
        return build_critic(self.config, self.reference, self.tokenizer, self.base.base_model)

    def reference_policy(self, device: torch.device) -> FrozenEngine:
        """The policy that learning started from; it never changes. With adapters it is the base, or what was given."""
        config = self.config
        if config.lora is None:
            model = self._load(self.reference, config.dtype)
        else:
            model = share(self.base) if config.lora.adapter is None else self.policy_model()
        return FrozenEngine(Policy(model.requires_grad_(False), self.temperature, config.dtype), config, device)

    def _load(self, path: str, dtype: Precision) -> PreTrainedModel:
        return load_causal_model(path, dtype, activation_checkpointing=self.config.activation_checkpointing)
