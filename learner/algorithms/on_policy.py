"""The common part of PPO, REINFORCE and GRPO: a policy gradient over the tokens of a cycle's own episodes.

Invariants: the advantages of all tokens are computed before the cycle's first step, under the policy that wrote the
episodes. Each episode is used once per epoch, in one cycle only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from buffer.episodes.schema import Episode
from learner.algorithm_config import OnPolicyConfig
from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.phases import Phase, Sweep
from learner.algorithms.setup import Setup
from learner.engine.engines import Engine
from learner.engine.sums import Sums, moments
from learner.errors import LearnerError
from learner.history.values import TurnValues
from learner.losses import behaviour_kl, policy_gradient_loss, reference_kl
from learner.models.policy import Policy
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, action_record


class OnPolicy(Algorithm):
    """A sweep of clipped or plain policy-gradient steps. A subclass defines the advantage of a token.

    Args:
        section: the settings of the method.
        policy: the policy to train, if it is made already.
    """

    def __init__(self, setup: Setup, section: OnPolicyConfig, policy: Policy | None = None) -> None:
        self.section = section
        self.window = setup.window
        self.encoder = PackedEncoder(setup.pad_token_id)
        policy = policy or setup.policy()
        self.policy = Engine(policy, setup.config, lr=section.lr, max_grad_norm=section.max_grad_norm)
        self.reference = setup.reference_policy(self.policy.device) if section.kl_to_clone else None
        self._advantages: dict[str, Tensor] = {}
        self.used: TurnValues = TurnValues()

    def phases(self, cycle: int) -> Sequence[Phase]:
        section = self.section
        # In sync mode no missing member of a group will follow, because its environment failed.
        group = self.group if self.window else 1
        return [Sweep("actor", section.batch, epochs=section.epochs, max_staleness=self.window, group=group)]

    @abstractmethod
    def token_advantages(self, batches: Sequence[MicroBatches]) -> dict[str, Tensor]:
        """Return the advantages of the action tokens [tokens] of each of this rank's episodes, by episode id."""

    def begin(self, batches: Sequence[MicroBatches]) -> None:
        for episode in episodes_of(batches):
            if len(episode.versions) == 0 or episode.versions.min() < 0:
                raise LearnerError(
                    f"{type(self).__name__.lower()} compares its policy with the policy that wrote an episode, and the "
                    f"tokens of {episode.episode_id} have no behaviour log-probabilities (demonstrations and imports "
                    "have none); use algorithm archer_offline or filtered_bc for them"
                )
        found = self.token_advantages(batches)
        if self.section.normalise_advantage:
            mean, std = moments(value.to(self.policy.device) for value in found.values())
            found = {key: (value - mean) / max(std, 1e-6) for key, value in found.items()}
        self._advantages = found
        self._note_advantages(episodes_of(batches))

    def _note_advantages(self, episodes: Sequence[Episode]) -> None:
        """Keep the advantages for people to look at: of each token, and their mean over each turn."""
        for episode in episodes if self.used.limit else ():
            lengths = (episode.action_end - episode.action_start).tolist()
            by_turn = self._advantages[episode.episode_id].cpu().split(lengths)
            means = torch.stack([part.mean() for part in by_turn])
            values = {name: value.cpu() for name, value in self.turn_values(episode).items()}
            tokens = [part.numpy() for part in by_turn]
            self.used.add_episode(episode.episode_id, episode.turns, tokens, advantage=means, **values)

    def turn_values(self, episode: Episode) -> dict[str, Tensor]:
        """Return what else the method computed of the turns of an episode, [turns], by columns of `VALUE_TABLE`."""
        return {}

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        section, device = self.section, self.policy.device
        sums = Sums(device)

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
            kl: Tensor | float = 0.0
            if self.reference is not None:
                kl = reference_kl(logprob, self.reference(layout, predictions))
                total = total + section.kl_to_clone * kl
            sums.gaps(logprob, behaviour, versions == version)
            sums.add(loss=total, kl=behaviour_kl(logprob, behaviour), entropy=-logprob.sum(), kl_to_clone=kl)
            sums.add(tokens=logprob.numel())
            return total

        norm = self.policy.step(micro_batches, loss, global_size=samples)
        metrics = sums.means("actor", samples) | {"actor/norm": norm}
        stop = section.kl_stop is not None and metrics["actor/kl"] > section.kl_stop
        return StepResult(metrics, stop=stop, gaps=sums.gap_counts)


def episodes_of(batches: Sequence[MicroBatches]) -> list[Episode]:
    """Return the episodes of all rows of a sweep, in order."""
    return [row.episode for micro_batches in batches for rows in micro_batches for row in rows]


def on_tokens(episode: Episode, per_turn: Tensor) -> Tensor:
    """Return a value per turn [turns] as a value per action token [tokens]."""
    return per_turn.repeat_interleave(torch.from_numpy((episode.action_end - episode.action_start).astype("int64")))
