"""What algorithms are made from: the models that a run starts with, loaded as its settings say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from learner.config import LearnerConfig
from learner.critic import Critic, build_critic, pad_token_id
from learner.engine import FrozenEngine
from learner.layout import Encoder
from learner.policy import Policy, TokenValue, load_causal_model
from learner.protocols import Scorer


@dataclass(frozen=True)
class Setup:
    """Where the policy starts from, and the settings.

    Attributes:
        model: folder or name of the policy's model; on resume, of the checkpoint's policy.
        reference: folder or name of the policy that learning started from, which `kl_to_clone` keeps close to.
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

    def policy_model(self) -> PreTrainedModel:
        """The policy's language model, on every rank the same."""
        return self._load(self.model)

    def value_model(self) -> TokenValue:
        """A value of each token's state, on a copy of the policy's backbone."""
        return TokenValue(self._load(self.model), self.config.ppo.value_hidden_size)

    def critic(self) -> tuple[Critic, Encoder]:
        """A new critic, and the encoder that lays rows out for it."""
        return build_critic(self.config.critic, self.model, self.tokenizer, dtype=self.config.dtype)

    def reference_policy(self, device: torch.device) -> FrozenEngine:
        """The policy that learning started from; it never changes."""
        return FrozenEngine(Policy(self._load(self.reference), self.temperature), self.config, device)

    def _load(self, path: str) -> PreTrainedModel:
        config = self.config
        return load_causal_model(path, config.dtype, activation_checkpointing=config.activation_checkpointing)
