"""What PPO, REINFORCE and GRPO share: a policy gradient over the tokens of a cycle's own episodes.

Invariants: the advantages of all of a cycle's tokens are computed before its first step, under the policy that wrote
the episodes; each episode is used once an epoch, and in one cycle only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from buffer.episodes.schema import Episode
from learner.algorithms.base import Algorithm, MicroBatches, Phase, StepResult
from learner.algorithms.setup import Setup
from learner.config import OnPolicyConfig
from learner.engine.engines import Engine, all_reduce_sum, moments
from learner.errors import LearnerError
from learner.losses import behaviour_kl, policy_gradient_loss, reference_kl
from learner.models.policy import Policy
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, action_record


class OnPolicy(Algorithm):
    """A sweep of clipped (or plain) policy-gradient steps; a subclass says what a token's advantage is.

    Args:
        section: the method's settings.
        setup: gives the encoder's pad, the engine's settings and, where `kl_to_clone` asks for it, the reference.
    """

    def __init__(self, policy: Policy, setup: Setup, section: OnPolicyConfig) -> None:
        self.section = section
        self.window = setup.window
        self._model = policy.model
        self.encoder = PackedEncoder(setup.pad_token_id)
        self.policy = Engine(policy, setup.config, lr=section.lr, max_grad_norm=section.max_grad_norm)
        self.reference = setup.reference_policy(self.policy.device) if section.kl_to_clone else None
        self._advantages: dict[str, Tensor] = {}

    @property
    def policy_model(self) -> PreTrainedModel:
        return self._model

    def phases(self, cycle: int) -> Sequence[Phase]:
        section = self.section
        return [
            Phase(
                "actor",
                0,
                section.batch,
                "episode",
                epochs=section.epochs,
                max_staleness=self.window,
                sweep=True,
                # Where learning waits for rollouts, who is missing (its environment failed) won't come any more.
                group=self.group if self.window else 1,
            )
        ]

    @abstractmethod
    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        """The advantage of each action token, [tokens] in order, by episode id, of all this rank's rows."""

    def begin(self, phase: Phase, batches: Sequence[MicroBatches]) -> None:
        for episode in episodes_of(batches):
            if len(episode.versions) == 0 or episode.versions.min() < 0:
                raise LearnerError(
                    f"{type(self).__name__.lower()} compares its policy with the one that wrote an episode, and the "
                    f"tokens of {episode.episode_id} carry no policy's log-probabilities (demonstrations and imports "
                    "have none); learn from them by archer_offline or filtered_bc"
                )
        found = self.token_advantages(batches)
        if self.section.normalise_advantage:
            mean, std = moments(value.to(self.policy.device) for value in found.values())
            found = {key: (value - mean) / max(std, 1e-6) for key, value in found.items()}
        self._advantages = found

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        section, device = self.section, self.policy.device
        sums = dict.fromkeys(("loss", "kl", "entropy", "tokens", "kl_to_clone"), 0.0)

        def loss(rows: Sequence[Row]) -> Tensor:
            layout = self.encoder.encode(rows, ("action",)).to(device)
            predictions = layout.predictions["action"]
            logprob = self.policy(layout, predictions)
            behaviour, versions = (torch.from_numpy(a).to(device) for a in action_record(rows))
            total = policy_gradient_loss(
                logprob,
                behaviour,
                torch.cat([self._advantages[row.episode.episode_id] for row in rows]).to(device),
                versions == version,
                importance_cap=1.0,
                clip=section.clip,
            )
            if self.reference is not None:
                kl = reference_kl(logprob, self.reference(layout, predictions))
                sums["kl_to_clone"] += kl.item()
                total = total + section.kl_to_clone * kl
            sums["loss"] += total.item()
            sums["kl"] += behaviour_kl(logprob, behaviour).item()
            sums["entropy"] -= logprob.sum().item()
            sums["tokens"] += logprob.numel()
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        sums = all_reduce_sum(sums, device)
        tokens = max(sums.pop("tokens"), 1.0)
        metrics = {"actor/loss": sums.pop("loss") / samples, "actor/norm": norm}
        metrics |= {f"actor/{name}": value / tokens for name, value in sums.items()}
        return StepResult(metrics, stop=section.kl_stop is not None and metrics["actor/kl"] > section.kl_stop)


def episodes_of(batches: Sequence[MicroBatches]) -> list[Episode]:
    """Return the episodes of all rows of a sweep, in order."""
    return [row.episode for micro_batches in batches for rows in micro_batches for row in rows]


def on_tokens(episode: Episode, per_turn: Tensor) -> Tensor:
    """Return a value per turn [turns] as a value per action token [tokens]."""
    return per_turn.repeat_interleave(torch.from_numpy((episode.action_end - episode.action_start).astype("int64")))
