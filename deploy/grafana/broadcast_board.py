"""The dashboard of the broadcast: the way of the weights to the engines, and its proof."""

from __future__ import annotations

from panels import NATS, RANGE, RUN, Dashboard, Panel, gauge, mean, quantile, quantiles, rate
from shared import PROOF

BROADCAST = Dashboard(
    "archer-broadcast",
    "ArCHer: broadcast",
    "The way of the weights from the learner to the engines, and its proof.",
    (
        (
            8,
            (
                Panel(
                    "Time of a broadcast",
                    (
                        (mean("archer_learner_broadcast_seconds"), "mean"),
                        (quantile(0.95, "archer_learner_broadcast_seconds"), "95%"),
                    ),
                    "s",
                    "With its proof.",
                ),
                Panel(
                    "Parts, on the learner",
                    (
                        (
                            f"{rate('archer_learner_broadcast_part_seconds_total', 'part')} / on () group_left () "
                            f"({rate('archer_learner_broadcast_seconds_count')} > 0)",
                            "{{part}}",
                        ),
                    ),
                    "s",
                    "Seconds of a broadcast: the learner's own log-probabilities, connecting, transfer, proof.",
                    kind="bars",
                ),
                Panel(
                    "Parts, in the engines",
                    ((mean("archer_rollout_weight_update_seconds", "part"), "{{part}}"),),
                    "s",
                    "Between pause and resume the engine generates nothing.",
                    kind="bars",
                ),
            ),
        ),
        (
            8,
            (
                PROOF,
                Panel(
                    "Mismatch of log-probabilities",
                    quantiles("archer_learner_logprob_mismatch_nats"),
                    NATS,
                    "Between engine and learner, of sampled tokens of the current policy.",
                    log=True,
                ),
                Panel(
                    "Proof of the passes",
                    ((gauge("archer_learner_pass_gap_nats"), "gap"),),
                    NATS,
                    "The learner's passes against the model's own, at the start.",
                    log=True,
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Policy version",
                    (
                        (gauge("archer_learner_policy_version"), "learner"),
                        (gauge("archer_rollout_policy_version", by="name"), "{{name}}"),
                    ),
                    "none",
                ),
                Panel(
                    "Workers",
                    ((gauge("archer_pool_workers", "sum", "state"), "{{state}}"),),
                    "none",
                    "A stale worker waits for the next broadcast.",
                    kind="bars",
                ),
                Panel(
                    "Attempts",
                    (
                        (f"increase(archer_learner_broadcast_attempts_total{{{RUN}}}[{RANGE}])", "attempts"),
                        (f"increase(archer_learner_broadcast_seconds_count{{{RUN}}}[{RANGE}])", "broadcasts"),
                    ),
                    "none",
                ),
            ),
        ),
    ),
)
