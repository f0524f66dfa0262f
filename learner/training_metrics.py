"""The metrics of a step, each as a Prometheus metric of its own with its unit in its name.

`TRAINING_METRICS` describes those of the algorithms here. The metrics of another algorithm are served too, under the
name that follows from theirs, with a description that says no more than where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge


class Described(NamedTuple):
    """What a metric of a step means, and the unit that its Prometheus name ends with; empty for a number."""

    text: str
    unit: str = ""


TRAINING_METRICS: Mapping[str, Described] = {
    "clone/loss": Described("Loss of behavioural cloning, a mean over samples."),
    "clone/token_nll": Described("Negative log-probability of an action token of the demonstrations.", "nats"),
    "clone/observation_nll": Described("Negative log-probability of an observation token, in cloning.", "nats"),
    "clone/privileged_nll": Described("Negative log-probability of a token of what the environment hides.", "nats"),
    "clone/norm": Described("Norm of the gradient of cloning, before it is clipped."),
    "clone/held_out_loss": Described("Weighted sum of the held-out losses.", "nats"),
    "clone/held_out_action_loss": Described("Loss of an action token on held-out demonstrations.", "nats"),
    "clone/held_out_observation_loss": Described("Loss of an observation token on held-out demonstrations.", "nats"),
    "clone/held_out_privileged_loss": Described("Loss of what the environment hides, on held-out episodes.", "nats"),
    "warmup/q_loss": Described("Loss J_Q of the warm-up on data, a mean over samples and heads."),
    "warmup/v_loss": Described("Loss J_V of the warm-up on data, a mean over samples and heads."),
    "warmup/q": Described("Mean of Q(s, a) of the data's actions, in the warm-up."),
    "warmup/v": Described("Mean of V(s), in the warm-up."),
    "warmup/target": Described("Mean of the targets of Q, in the warm-up."),
    "warmup/norm": Described("Norm of the critic's gradient in the warm-up, before it is clipped."),
    "warmup/observation_nll": Described("Negative log-probability of an observation token, in the warm-up.", "nats"),
    "warmup/privileged_nll": Described("Negative log-probability of what the environment hides, in warm-up.", "nats"),
    "critic/q_loss": Described("Loss J_Q of Q, a mean over samples and heads."),
    "critic/v_loss": Described("Loss J_V of V, a mean over samples and heads."),
    "critic/q": Described("Mean of Q(s, a) of the data's actions."),
    "critic/v": Described("Mean of V(s)."),
    "critic/target": Described("Mean of the targets of Q."),
    "critic/norm": Described("Norm of the critic's gradient, before it is clipped."),
    "critic/observation_nll": Described("Negative log-probability of an observation token, of the critic.", "nats"),
    "critic/privileged_nll": Described("Negative log-probability of what the environment hides (critic).", "nats"),
    "critic/bias": Described("Mean of V minus the discounted return, on episodes not trained on."),
    "critic/value_start": Described("Mean of V at the first state, on episodes not trained on."),
    "critic/return_start": Described("Mean of the discounted return at the first state, on episodes not trained on."),
    "critic/explained_variance": Described(
        "Share of the variance of returns that V explains, on episodes not trained on; 1 is perfect, 0 is a constant.",
        "ratio",
    ),
    "critic/correlation": Described("Correlation of V and the discounted return, on episodes not trained on."),
    "critic/exact_best": Described("Share of states at which Q ranks an optimal action first.", "ratio"),
    "critic/exact_regret": Described("Mean loss of Q* by playing the action that Q ranks first."),
    "critic/exact_correlation": Described("Correlation of Q with the exact Q* over legal actions."),
    "actor/loss": Described("Loss of the policy, a mean over samples."),
    "actor/token_nll": Described("Negative log-probability of a token of the policy's targets.", "nats"),
    "actor/norm": Described("Norm of the policy's gradient, before it is clipped."),
    "actor/advantage": Described("Mean advantage of the actions of a step."),
    "actor/advantage_std": Described("Standard deviation of the advantage of the actions of a step."),
    "actor/baseline_loss": Described("Squared error of the token-level baseline."),
    "actor/distinct": Described("Distinct fresh actions of a state, a mean over samples."),
    "actor/entropy": Described("Negative log-probability of a sampled token, an estimate of the entropy.", "nats"),
    "actor/kl": Described("Divergence of the policy from the one that wrote the tokens, per token.", "nats"),
    "actor/kl_to_clone": Described("Divergence of the policy from the clone, per token.", "nats"),
    "actor/moved": Described("Probability that the improvement moves between actions, a mean over samples.", "ratio"),
    "actor/value": Described("Mean value that PPO's critic predicts for a token."),
    "actor/value_loss": Described("Squared error of PPO's critic."),
    "actor/value_norm": Described("Norm of the gradient of PPO's critic, before it is clipped."),
    "actor/weight": Described("Mean weight of an action in advantage-weighted regression."),
}


class TrainingMetrics:
    """Gauges of the latest value of each metric, made when a metric first has one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Set the gauges of `metrics`, which are named as in metrics.jsonl."""
        for key, value in metrics.items():
            if key not in self._gauges:
                self._gauges[key] = Gauge(metric_name(key), described(key).text, registry=self._registry)
            self._gauges[key].set(value)


def described(key: str) -> Described:
    """Return the description of the metric `key`."""
    return TRAINING_METRICS.get(key, Described(f"Latest value of the algorithm's metric {key}."))


def metric_name(key: str) -> str:
    """Return the Prometheus name of the metric `key`: "critic/q_loss" is archer_learner_critic_q_loss."""
    unit = described(key).unit
    return f"archer_learner_{re.sub('[^a-zA-Z0-9]', '_', key)}{unit and '_' + unit}"
