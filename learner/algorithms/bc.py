"""Behavioural cloning: maximise the likelihood of the demonstrations' actions, and optionally of their observations.

A step's loss is (1 / samples) (sum over action tokens + weight (A / O) sum over observation tokens) of -log p, where A
and O are the numbers of these tokens in the global batch. It is A / samples times the sum of the mean over action
tokens and `weight` times the mean over observation tokens, so that a long observation does not outweigh a short
action, and a weight of 0 leaves the loss of actions alone. An episode that a batch holds twice counts its observations
once. In the same way `privileged_weight` times the mean loss of what the environment hides is added, which a head of
its own predicts at each state (`learner.algorithms.auxiliary`): a policy whose features hold it can act on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from learner.algorithm_config import CloneConfig
from learner.algorithms.auxiliary import samples_with_text, text_loss
from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.phases import Draws, Phase
from learner.algorithms.setup import Setup
from learner.engine.engines import Engine
from learner.engine.sums import Sums
from learner.losses import cloning_loss
from learner.passes.layout import Layout, Part, Predictions
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

Measured = Callable[[int, dict[str, float]], Any]
"""Receives the number of steps taken and the held-out losses."""


class Cloning(Algorithm):
    """Takes likelihood steps on whole episodes. The stop token of an action is one of its tokens.

    The likelihood is that at temperature 1, at any sampling temperature of the engines.

    Args:
        observation_weight, privileged_weight: weights of these losses, see the module's docstring.
    """

    def __init__(
        self, setup: Setup, *, lr: float, observation_weight: float = 0.0, privileged_weight: float = 0.0
    ) -> None:
        self.config = setup.config
        self._weight, self._privileged_weight = observation_weight, privileged_weight
        self._encoder = PackedEncoder(setup.pad_token_id, setup.text_tokens if privileged_weight else None)
        policy = setup.policy(predicts_texts=privileged_weight > 0)
        self.policy = Engine(policy, setup.config, lr=lr, max_grad_norm=setup.config.actor.max_grad_norm)

    @property
    def _texts(self) -> tuple[Part, ...]:
        return ("privileged",) if self._privileged_weight else ()

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        sums = Sums(self.policy.device)
        parts: tuple[Part, ...] = ("action", "observation") if self._weight else ("action",)
        layouts = [self._encoder.encode(rows, (*parts, *self._texts)) for rows in micro_batches]
        per_observation, per_text = self._actions_per(micro_batches, layouts)

        def loss(rows: Sequence[Row], layout: Layout) -> Tensor:
            (action, *observation), text = self._logprobs(layout, parts)
            total = nll = cloning_loss(action)
            for logprob in observation:
                scaled = per_observation * cloning_loss(logprob)
                # Over the number of action tokens, this is the mean over observation tokens.
                sums.add(observation_nll=scaled)
                total = total + self._weight * scaled
            if text is not None:
                scaled = per_text * text_loss(text, layout.predictions["privileged"])
                sums.add(privileged_nll=scaled)
                total = total + self._privileged_weight * scaled
            sums.add(loss=total, token_nll=nll, tokens=action.numel())
            return total

        norm = self.policy.step(micro_batches, loss, layouts, global_size=samples)
        return StepResult(sums.means(phase.name, samples) | {f"{phase.name}/norm": norm})

    def _logprobs(self, layout: Layout, parts: Sequence[Part]) -> tuple[Sequence[Tensor], Tensor | None]:
        """Return the log-probabilities of the tokens of each part, float32 [tokens], from one pass.

        The second value is that of privileged texts, None if the layout has none.
        """
        layout = layout.to(self.policy.device)
        found = [layout.predictions[part] for part in parts]
        together = Predictions(*map(torch.cat, zip(*found, strict=True)))
        result: Any = self.policy(layout, together, temperature=1.0)
        logprob, text = result if "privileged" in layout.predictions else (result, None)
        return logprob.split([predictions.token.numel() for predictions in found]), text

    def _actions_per(self, micro_batches: MicroBatches, layouts: Sequence[Layout]) -> tuple[float, float]:
        """Return A / O, and the action tokens for each sample with a privileged text, over all ranks.

        Each is 0 if nothing is to be predicted. Called on every rank.
        """
        if not (self._weight or self._privileged_weight):
            return 0.0, 0.0
        counts = Sums(self.policy.device)
        counts.add(observations=0.0)
        for rows, layout in zip(micro_batches, layouts, strict=True):
            if self._weight:
                counts.add(observations=layout.predictions["observation"].token.numel())
            counts.add(actions=layout.predictions["action"].token.numel(), texts=samples_with_text(rows))
        total = counts.total()
        per = [total["actions"] / total[name] if total[name] else 0.0 for name in ("observations", "texts")]
        return per[0], per[1]


class BehaviourCloning(Cloning):
    """The stage before the first cycle. As the algorithm of a run its cycles have no phases: the policy only plays."""

    def __init__(self, setup: Setup) -> None:
        clone = setup.config.clone
        super().__init__(
            setup,
            lr=clone.lr,
            observation_weight=clone.observation_weight,
            privileged_weight=clone.privileged_weight,
        )
        self._schedule = Schedule(clone)
        self._held_out: MicroBatches = ()
        self._measured: Measured = lambda step, losses: None

    @property
    def stage(self) -> Draws:
        """All of cloning, as one phase over the demonstrations."""
        return Draws("clone", self.config.clone.steps, self.config.clone.batch)

    def measure_on(self, held_out: MicroBatches, measured: Measured) -> None:
        """Measure the loss on these episodes, this rank's share, and call `measured` with it on every rank."""
        self._held_out, self._measured = held_out, measured

    def phases(self, cycle: int) -> Sequence[Phase]:
        return []

    def step(self, phase: Phase, micro_batches: MicroBatches, samples: int, version: int) -> StepResult:
        schedule = self._schedule
        self.policy.set_lr(schedule.rate)
        result = super().step(phase, micro_batches, samples, version)
        schedule.step += 1
        metrics = result.metrics
        if self._held_out and (schedule.step % self.config.clone.measure_every == 0 or schedule.ended):
            found = self.held_out_losses()
            parts = ("action", "observation") if self._weight else ("action",)
            names = [f"clone/held_out_{part}_loss" for part in (*parts, *self._texts)]
            schedule.note([found[name] for name in names if name in found])
            self._measured(schedule.step, found)
            metrics = metrics | found
        return StepResult(metrics, stop=schedule.ended)

    def held_out_losses(self) -> dict[str, float]:
        """Return the mean losses of the held-out episodes in nats per token. Called on every rank.

        "clone/held_out_action_loss" is that of action tokens, "clone/held_out_observation_loss" that of observation
        tokens (absent without any), "clone/held_out_privileged_loss" that of privileged texts per sample (absent if
        none is predicted), and "clone/held_out_loss" their weighted sum.
        """
        sums = Sums(self.policy.device)
        for rows in self._held_out:
            layout = self._encoder.encode(rows, ("action", "observation", *self._texts))
            with torch.no_grad():
                (action, observation), text = self._logprobs(layout, ("action", "observation"))
            if text is not None:
                sums.add(texts=samples_with_text(rows), privileged=text_loss(text, layout.predictions["privileged"]))
            sums.add(action=cloning_loss(action), actions=action.numel())
            sums.add(observation=cloning_loss(observation), observations=observation.numel())
        total = sums.total()
        found = {"clone/held_out_action_loss": total["action"] / total["actions"]}
        if total["observations"]:
            found["clone/held_out_observation_loss"] = total["observation"] / total["observations"]
        if total.get("texts"):
            found["clone/held_out_privileged_loss"] = total["privileged"] / total["texts"]
        weighted = self._weight * found.get("clone/held_out_observation_loss", 0.0)
        weighted += self._privileged_weight * found.get("clone/held_out_privileged_loss", 0.0)
        return found | {"clone/held_out_loss": found["clone/held_out_action_loss"] + weighted}


class Schedule:
    """The learning rate of each step, and the end of cloning.

    Without `patience` the rate falls linearly to zero over `steps`, so that the noise of single batches averages out.
    With it the end is not known in advance. The rate is then constant until no part of the held-out loss, of actions or
    of observations, has fallen for `patience` measures: actions of a random player are learnt long before what the
    observations say, and the noise of their loss would hide that the other one still falls. The rate then falls to zero
    over the `decay_steps` that follow (Hu et al., 2024, section 4). A rate that fell from the start would flatten the
    loss by itself, and cloning would end by the schedule and not by the data.
    The fall begins `decay_steps` before the bound `steps` at the latest.

    Attributes:
        step: number of steps taken.
    """

    def __init__(self, clone: CloneConfig) -> None:
        self.step = 0
        self._clone = clone
        self._fall = clone.steps if clone.patience is None else clone.decay_steps
        self._fall_from = clone.steps - self._fall
        self._best: list[float] = []
        self._waited = 0

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        fallen = max(self.step - self._fall_from, 0)
        return self._clone.lr * (1.0 - fallen / self._fall)

    @property
    def ended(self) -> bool:
        """Whether the last step was taken."""
        return self.step >= self._fall_from + self._fall

    def note(self, losses: Sequence[float]) -> None:
        """Begin the fall of the rate if these parts of the held-out loss are the last of `patience` without a fall."""
        before = self._best or [float("inf")] * len(losses)
        fell = [loss < best - self._clone.least_fall for loss, best in zip(losses, before, strict=True)]
        self._best = [loss if down else best for loss, best, down in zip(losses, before, fell, strict=True)]
        self._waited = 0 if any(fell) else self._waited + 1
        if self._clone.patience is not None and self._waited >= self._clone.patience:
            self._fall_from = min(self._fall_from, self.step)
