"""The proof of the learner's passes over the run's models, before anything that needs them starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archer.config.models import RunConfig
from archer.errors import ConfigError
from buffer.quick_imports import quick_imports

if TYPE_CHECKING:
    from learner.check.proof import PassProof


@dataclass(frozen=True)
class Passes:
    """How the learner runs the models of a run.

    Attributes:
        policy: the proof of the policy.
        critic: the proof of a critic's backbone that is another causal model.
    """

    policy: PassProof
    critic: PassProof | None = None

    @property
    def gap(self) -> float:
        """The largest gap of a log-probability in nats."""
        return max(proof.gap for proof in self.proofs.values())

    @property
    def proofs(self) -> dict[str, PassProof]:
        """The proofs by the model's role."""
        return {"policy": self.policy} | ({} if self.critic is None else {"critic": self.critic})

    def settle(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the learner's `passes` as proved."""
        found = config.model_copy(deep=True)
        found.learner.passes = self.policy.passes
        if self.critic is not None:
            found.learner.critic.passes = self.critic.passes
        return found

    def event(self) -> dict[str, Any]:
        """Return the proofs as an event: `models` has the fields of each proof by the model's role."""
        models = {role: asdict(proof) | {"line": proof.line()} for role, proof in self.proofs.items()}
        return {"kind": "passes", "gap": self.gap, "models": models}


def prove_passes(config: RunConfig, model: str) -> Passes:
    """Prove the passes over the policy `model` and over the critic's backbone.

    Raises:
        ConfigError: the learner cannot compute what a model computes.
    """
    with quick_imports():  # late: imports torch
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        from learner.check.critics import prove_critic
        from learner.check.proof import PassProofError, prove

    disable_progress_bar()
    set_verbosity_error()
    learner = config.learner
    named = f"`model.path` {config.model.path!r}" if config.model.path is not None else f"the model {model!r}"
    with _threads(learner.threads):
        try:
            policy = prove(
                model,
                passes=learner.passes,
                activation_checkpointing=learner.activation_checkpointing,
                seed=config.seed,
            )
        except PassProofError as error:
            raise ConfigError(f"{named} cannot be trained: {error}") from error
        critic = None
        if config.algorithm_config.has_critic:
            try:
                critic = prove_critic(learner)
            except PassProofError as error:
                raise ConfigError(
                    f"`learner.critic.backbone` {learner.critic.backbone!r} cannot be trained: {error}"
                ) from error
    return Passes(policy, critic)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a rank of the learner in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
