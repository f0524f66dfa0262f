"""The proof of a critic's backbone, where it is another model than the policy."""

from __future__ import annotations

from transformers import AutoConfig

from learner.check.proof import PassProof, prove
from learner.config import LearnerConfig
from learner.models.pretrained import is_causal


def prove_critic(config: LearnerConfig) -> PassProof | None:
    """Prove the passes of `critic.backbone`; None if it is the policy's, is made by the run, or is an encoder.

    An encoder reads each state as a sequence of its own (`learner.passes.separate_encoder`). A backbone that the run
    makes is a Llama, whose passes are those of every other Llama.
    """
    critic = config.critic
    if critic.build is not None or critic.backbone == "policy":
        return None
    if not is_causal(AutoConfig.from_pretrained(critic.backbone, trust_remote_code=False)):
        return None
    return prove(critic.backbone, passes=critic.passes, activation_checkpointing=config.activation_checkpointing)
