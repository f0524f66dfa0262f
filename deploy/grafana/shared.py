"""Panels that several dashboards show."""

from __future__ import annotations

from panels import NATS, RANGE, RUN, Panel, each, gauge, mean, rate

EPISODES = Panel(
    "Episodes", ((rate("archer_rollout_episodes_total", "stage"), "{{stage}}"),), "cps", "Episodes per second."
)
TOKENS = Panel(
    "Generated",
    (
        (rate("archer_rollout_action_tokens_total"), "action tokens"),
        (rate("archer_rollout_fresh_tokens_total"), "tokens of fresh actions"),
    ),
    "cps",
    "Tokens per second of the episodes and of fresh actions at replayed states.",
)
RETURNS = Panel(
    "Return",
    ((gauge("archer_run_return", by="stage"), "{{stage}}"),),
    text="Mean undiscounted return of the latest cycle, and of the latest evaluation.",
)
SUCCESS = Panel(
    "Success",
    ((gauge("archer_run_success_ratio", by="stage"), "{{stage}}"),),
    "percentunit",
    "Share of episodes that succeeded. Empty if the environment does not say.",
    most=1.0,
)
PHASES = Panel(
    "Where the time goes",
    ((f"max by (phase) (rate(archer_learner_phase_seconds_total{{{RUN}}}[{RANGE}]))", "{{phase}}"),),
    "percentunit",
    "Share of each part of a cycle, on the learner.",
    kind="bars",
    most=1.0,
)
IDLE = Panel(
    "Idle",
    (
        (f"1 - avg(rate(archer_rollout_engine_busy_seconds_total{{{RUN}}}[{RANGE}]))", "engines"),
        (f"1 - avg(rate(archer_learner_busy_seconds_total{{{RUN}}}[{RANGE}]))", "learner ranks"),
    ),
    "percentunit",
    "Share of the time in which an engine has no request, and in which a rank takes no gradient step.",
    most=1.0,
)
STALENESS = Panel(
    "Staleness",
    (
        (mean("archer_rollout_token_staleness_versions"), "tokens of new episodes"),
        (mean("archer_learner_sample_staleness_versions", "phase"), "samples, {{phase}}"),
    ),
    text="Policy versions by which tokens are behind: at the end of their episode, and when they are trained on.",
)
LOSSES = Panel(
    "Losses",
    each("archer_learner_", critic_q_loss="J_Q", critic_v_loss="J_V", actor_loss="policy"),
    text="Losses of the latest step.",
)
FILL = Panel(
    "Replay",
    (
        (f"sum(archer_replay_turns{{{RUN}}}) / sum(archer_replay_capacity_turns{{{RUN}}})", "fill"),
        (f"max by (side) (rate(archer_limiter_blocked_seconds_total{{{RUN}}}[{RANGE}]))", "blocked: {{side}}"),
    ),
    "percentunit",
    "How full the replay is, and the share of the time in which the limiter holds back calls of each side.",
    most=1.0,
)
PROOF = Panel(
    "Proof",
    ((gauge("archer_learner_proof_gap_nats"), "gap"), (gauge("archer_learner_proof_tolerance_nats"), "tolerance")),
    NATS,
    "Largest difference of a log-probability between engines and learner. Above the tolerance the run ends.",
    log=True,
)
