"""The common part of the utterance-level methods: policy, critic and target network, and the critic's step.

Invariants: actor and critic have separate optimizers and separate gradient clipping. Targets contain only values of the
target network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from learner.algorithms.action_ratios import ActionRatios
from learner.algorithms.auxiliary import AuxiliaryLosses
from learner.algorithms.base import Algorithm, MicroBatches, StepResult
from learner.algorithms.divergence import Divergence
from learner.algorithms.phases import Draws
from learner.algorithms.setup import Setup
from learner.algorithms.targets import backup_at_states, n_step_returns, sample_weights
from learner.critic_config import CriticConfig
from learner.diagnosis import against_exact, return_figures, with_legal_actions
from learner.engine.checkpoints import on_rank_0
from learner.engine.engines import Engine, FrozenEngine
from learner.engine.sums import Sums
from learner.errors import LearnerError
from learner.history.values import TurnValues
from learner.losses import advantage, lambda_target, over_heads, td_target
from learner.models.adapters import twin
from learner.passes.layout import Part, Predictions
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row, fresh_shares
from learner.protocols import ExactActions

Values = dict[str, Tensor]
ValueLoss = Callable[[Tensor, Values], Tensor]
MicroBatchLoss = Callable[[Sequence[Row]], Tensor]
MakeLoss = Callable[[AuxiliaryLosses, Sums, list[Tensor]], MicroBatchLoss]
"""Returns the loss of a micro-batch, summed; the loss adds to the sums of the metrics and to the list of TD errors."""


class ActorCritic:
    """The engines of one policy and one utterance-level critic."""

    def __init__(self, setup: Setup, *, actor_lr: float | None = None) -> None:
        self.config = config = setup.config
        self.used = TurnValues()
        actor = config.actor
        critic, self.critic_encoder = setup.critic()
        self.code = critic.code
        self._divergence = Divergence(config.critic)
        self._texts_seen = False
        self.policy_encoder = PackedEncoder(setup.pad_token_id)
        width = actor.baseline_hidden_size if actor.token_baseline else None
        policy = setup.policy(baseline_width=width)
        self.policy = Engine(policy, config, lr=actor_lr or actor.lr, max_grad_norm=actor.max_grad_norm)
        target = twin(critic)
        self.critic = Engine(critic, config, lr=config.critic.lr, max_grad_norm=config.critic.max_grad_norm)
        self.target = FrozenEngine(target, config, self.critic.device)
        by_clone = setup.retraces_by_clone
        needs_clone = by_clone or actor.kl_to_clone > 0
        self.reference = setup.reference_policy(self.policy.device) if needs_clone else None
        self.ratios = ActionRatios(
            self.policy_encoder,
            self.policy,
            self.reference if by_clone else None,
            self.policy.device,
            keep=config.zero_stage < 3,
        )

    def critic_step(self, micro_batches: MicroBatches, samples: int, value_loss: ValueLoss, bar_q: Part) -> StepResult:
        """Take one step of J_Q, J_V and the auxiliary losses, then update the target network.

        Args:
            value_loss: returns J_V, summed, of V at the states [heads, samples] and the target network's values.
            bar_q: the actions at which `value_loss` needs the target network's Q: "fresh" or "action".

        Returns:
            Metrics, and the TD errors if draws are prioritised.
        """
        return self.step_by(partial(self._heads_loss, value_loss, bar_q), micro_batches, samples)

    def step_by(self, make_loss: MakeLoss, micro_batches: MicroBatches, samples: int) -> StepResult:
        """Take one step of the critic by another loss than `critic_step`, then update the target network."""
        config = self.config.critic
        sums = Sums(self.critic.device)
        td_errors: list[Tensor] = []
        auxiliary = AuxiliaryLosses(config, micro_batches, samples, sums)
        self._require_texts(auxiliary)
        sums.add(reward=sum(map(self._divergence.reward_of, micro_batches)))
        norm = self.critic.step(micro_batches, make_loss(auxiliary, sums, td_errors), global_size=samples)
        self.target.average_towards(self.critic, config.tau)
        means = {name: value / samples for name, value in sums.total().items()}
        self._divergence.check(means.pop("reward"), means["target"])
        metrics = {f"critic/{name}": value for name, value in means.items()} | {"critic/norm": norm}
        if config.sampler != "prioritised":
            return StepResult(metrics)
        return StepResult(metrics, td_errors=[errors.cpu().numpy() for errors in td_errors])

    def _require_texts(self, auxiliary: AuxiliaryLosses) -> None:
        """Raise LearnerError if privileged texts are to be predicted and no episode so far has one."""
        self._texts_seen = self._texts_seen or auxiliary.texts > 0
        if "privileged" in auxiliary.parts and not self._texts_seen:
            raise LearnerError(
                "`learner.critic.privileged_weight` trains the critic to predict what the environment hides, and no "
                "episode of the first batch has such a text; set it to 0, or let `reset` of the environment return "
                "info['privileged'] with texts, numbers or flags"
            )

    def _heads_loss(
        self, value_loss: ValueLoss, bar_q: Part, auxiliary: AuxiliaryLosses, sums: Sums, td_errors: list[Tensor]
    ) -> MicroBatchLoss:
        """Return the loss J_Q + J_V of a micro-batch with its auxiliary losses, see `critic_step`."""
        config, device = self.config.critic, self.critic.device
        code = self.code

        def loss(rows: Sequence[Row]) -> Tensor:
            following: Part = "next_state" if config.lambda_turn is None else "next_states"
            ahead = self.critic_encoder.encode(rows, (following, bar_q), config.n_step).to(device)
            bar = self.target(ahead, q=(bar_q,), v=(following,))
            target = self._q_target(rows, bar[f"v_{following}"])
            now = self.critic_encoder.encode(rows, ("state", "action", *auxiliary.parts), 1).to(device)
            outputs = self.critic(now, q=("action",), v=("state",), outputs=True)
            q, v = code.value(outputs["q_action"]), code.value(outputs["v_state"])
            td_errors.append((q.detach() - target).abs().mean(0).float())
            self.note_values(rows, q.detach(), v.detach(), target)
            # A sample's weight scales both sides of each squared error by its root: w e^2 = (sqrt(w) e)^2.
            weight = sample_weights(rows, device)
            root = weight.sqrt()
            j_q = (code.error(outputs["q_action"], target) * weight).sum()
            bar_at = {name: value * (root if value.dim() == 2 else root.unsqueeze(-1)) for name, value in bar.items()}
            j_v = value_loss(v * root, bar_at) / config.value_unit**2
            found = {"q_loss": j_q, "v_loss": j_v, "q": q, "v": v, "target": target}
            sums.add(**{name: value.detach().sum().double() / len(target) for name, value in found.items()})
            return j_q + j_v + auxiliary.of(outputs, now.predictions)

        return loss

    def note_values(self, rows: Sequence[Row], q: Tensor, v: Tensor, target: Tensor) -> None:
        """Keep the values of a step at the sampled turns, each [heads, samples], for people to look at.

        Q, V and target are means over heads; the advantage is that of the ensemble, as in the actor.
        """
        self.used.add(rows, q=q.mean(0), v=v.mean(0), advantage=self._ahead(q, v), target=target.mean(0))

    def _ahead(self, q: Tensor, v: Tensor) -> Tensor:
        """Return the advantage of the ensemble [samples], of Q and V [heads, samples]."""
        return advantage(self._over_heads(q).unsqueeze(-1), self._over_heads(v)).squeeze(-1)

    def revalue(self, micro_batches: MicroBatches) -> TurnValues:
        """Return the values of the turns of whole episodes, as in `note_values` but without a target."""
        values = TurnValues()
        values.limit = sum(len(row.turns) for rows in micro_batches for row in rows)
        for rows in micro_batches:
            fresh = self.config.critic.value == "fresh"
            parts: tuple[Part, ...] = ("fresh", "action") if fresh else ("state", "action")
            layout = self.critic_encoder.encode(rows, parts, 1).to(self.critic.device)
            with torch.no_grad():
                found = self.critic(
                    layout, q=("fresh", "action") if fresh else ("action",), v=() if fresh else ("state",)
                )
            q = found["q_action"]
            if fresh:
                states = backup_at_states(self.config.critic, rows, found["q_fresh"])
                each = states.split([len(row.states) for row in rows], 1)
                v = torch.cat([part[:, : len(row.turns)] for part, row in zip(each, rows, strict=True)], 1)
            else:
                v = found["v_state"]
            values.add(rows, q=q.mean(0), v=v.mean(0), advantage=self._ahead(q, v))
        return values

    def _q_target(self, rows: Sequence[Row], next_value: Tensor) -> Tensor:
        """Return the targets of Q [heads, samples].

        `next_value` is V after n turns [heads, samples], or after each of 1 to n turns [heads, samples, n].
        """
        config = self.config.critic

        def after(n: int) -> Tensor:
            return torch.from_numpy(n_step_returns(rows, n, config.gamma)).to(next_value.device)

        if config.lambda_turn is None:
            reward, discount, terminated = after(config.n_step)
            return td_target(reward, discount, terminated, next_value)
        reward, discount, terminated = torch.stack([after(n) for n in range(1, config.n_step + 1)], -1)
        return lambda_target(reward, discount, terminated, next_value, config.lambda_turn)

    def advantage(self, rows: Sequence[Row], part: Part) -> Tensor:
        """Return A(s, a) of the actions `part` ("fresh" or "action"), [samples, actions], without gradient."""
        config = self.config.critic
        horizon = 0 if part == "fresh" else 1
        layout = self.critic_encoder.encode(rows, ("state", part), horizon).to(self.critic.device)
        with torch.no_grad():
            values = self.critic(layout, q=(part,), v=("state",) if config.value == "heads" else ())
        q = self._over_heads(values[f"q_{part}"])
        if config.value == "heads":
            v = self._over_heads(values["v_state"])
        else:
            # The mean, for any backup: the advantage over the policy that wrote the fresh actions.
            v = (q * torch.from_numpy(fresh_shares(rows)).to(q.device)).sum(-1)
        return advantage(q if part == "fresh" else q.unsqueeze(-1), v).to(self.policy.device)

    def episode_values(self, rows: Sequence[Row]) -> tuple[list[Tensor], list[Tensor]]:
        """Return V(s) of whole episodes, the mean over heads, without gradient.

        Returns:
            For each row V at its turns, [turns], and V of the state after the last turn, a scalar; the latter is 0 for
            a terminated episode if V is computed from fresh actions.
        """
        turns = [len(row.turns) for row in rows]
        if self.config.critic.value == "fresh":
            layout = self.critic_encoder.encode(rows, ("fresh",), 0).to(self.critic.device)
            with torch.no_grad():
                q = self.critic(layout, q=("fresh",))["q_fresh"]
            states = backup_at_states(self.config.critic, rows, q).mean(0).split([len(row.states) for row in rows])
            after = [v[n] if len(v) > n else v.new_zeros(()) for v, n in zip(states, turns, strict=True)]
            return [v[:n] for v, n in zip(states, turns, strict=True)], after
        layout = self.critic_encoder.encode(rows, ("state", "next_state"), 1).to(self.critic.device)
        with torch.no_grad():
            values = self.critic(layout, v=("state", "next_state"))
        now, following = (values[name].mean(0).split(turns) for name in ("v_state", "v_next_state"))
        return list(now), [ahead[-1] for ahead in following]

    def action_values(self, rows: Sequence[Row]) -> Tensor:
        """Return Q(s, a) of the fresh actions of `rows`, as in advantages: [samples, actions], without gradient."""
        layout = self.critic_encoder.encode(rows, ("fresh",), 0).to(self.critic.device)
        with torch.no_grad():
            return self._over_heads(self.critic(layout, q=("fresh",))["q_fresh"])

    def _over_heads(self, values: Tensor) -> Tensor:
        """Return the ensemble's value, as `critic.ensemble` says, of values [heads, ...]."""
        return over_heads(values, self.config.critic.ensemble, self.config.critic.ensemble_penalty)

    def critic_state(self) -> dict[str, Tensor]:
        """Return the critic's weights in host memory, adapters merged, on rank 0; an empty dict on other ranks.

        Called on every rank, because gathering under ZeRO-3 is collective.
        """
        from learner.broadcast.policy_source import PolicySource  # imports vLLM, which other algorithms do not need

        module = self.critic.module
        state = on_rank_0(PolicySource(module))
        if state is None:
            return {}
        kept = module.state_dict()
        return state | {name: buffer.to("cpu", copy=True) for name, buffer in module.named_buffers() if name in kept}


WARMUP = "warmup"
"""The name of the phase of a warm-up on data, in the first cycle."""


def critic_phases(config: CriticConfig, cycle: int, *, fresh: int) -> list[Draws]:
    """Return the critic's draws in cycle `cycle`, counted from 0: the first has the warm-up too.

    `fresh` is the number of fresh actions at each state. The warm-up has draws of its own if it is one on data.
    """
    main = _main_phase(config, fresh)
    if cycle or not config.warmup_steps:
        return [main]
    if not config.warms_up_on_data:
        return [replace(main, extra=config.warmup_steps)]
    whole = Draws(
        WARMUP,
        config.warmup_steps,
        config.batch,
        bootstraps=True,
        sampler=config.sampler,
        importance=config.importance_exponent,
        trains_policy=False,
    )
    return [whole, main]


def _main_phase(config: CriticConfig, fresh: int) -> Draws:
    over_states = config.value == "fresh"
    return Draws(
        "critic",
        config.steps_per_cycle,
        config.batch,
        config.unit,
        fresh=fresh,
        # The actor phase can use the same actions, for which it needs their log-probabilities.
        logprobs=over_states,
        distinct=over_states,
        bootstraps=over_states,
        sampler=config.sampler,
        importance=config.importance_exponent,
        recent_share=config.recent_share,
        recent_versions=config.recent_versions,
        recent_repeats=config.recent_repeats,
        updates_per_turn=config.updates_per_turn,
        trains_policy=False,
    )


class OverActorCritic(Algorithm):
    """An algorithm whose whole state is an `ActorCritic`, so that another algorithm can continue with it."""

    has_values = True

    def __init__(self, setup: Setup, engines: ActorCritic | None = None) -> None:
        self.engines = engines or ActorCritic(setup)
        self.config = setup.config
        self.policy = self.engines.policy
        self.used = self.engines.used
        critic = self.config.critic
        self.fresh_to_diagnose = critic.fresh_per_state if critic.value == "fresh" else 0

    def diagnose(self, micro_batches: MicroBatches, exact: ExactActions | None) -> dict[str, float]:
        engines, episodes, values, last = self.engines, [], [], []
        for rows in micro_batches:
            now, after = engines.episode_values(rows)
            episodes += [row.episode for row in rows]
            values += now
            last += after
        found = return_figures(episodes, values, last, self.config.critic.gamma, engines.critic.device)
        if exact is not None:
            legal = [with_legal_actions(rows, exact) for rows in micro_batches]
            true = [q for _, of_rows in legal for q in of_rows]
            found |= against_exact([engines.action_values(rows) for rows, _ in legal], true, engines.critic.device)
        return found

    def revalue(self, micro_batches: MicroBatches) -> TurnValues | None:
        return self.engines.revalue(micro_batches)

    def save(self, directory: Path) -> None:
        super().save(directory)
        self.engines.critic.save(str(directory), "critic")
        torch.save(self.engines.target.state(), directory / f"target-{dist.get_rank()}.pt")

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.engines.critic.load(str(directory), "critic")
        self.engines.target.load_state(torch.load(directory / f"target-{dist.get_rank()}.pt", weights_only=True))


def token_advantages(advantages: Tensor, predictions: Predictions) -> Tensor:
    """Return the advantage of its utterance for each token: [samples, actions] to [tokens]."""
    return advantages[predictions.sample, predictions.action]
