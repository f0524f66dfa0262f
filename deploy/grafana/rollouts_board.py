"""The dashboard of rollouts: engines, environments and episodes."""

from __future__ import annotations

from panels import RANGE, RUN, Dashboard, Panel, gauge, mean, quantile, quantiles, rate
from shared import EPISODES, TOKENS

ROLLOUTS = Dashboard(
    "archer-rollouts",
    "ArCHer: rollouts",
    "Engines, environments and the episodes that they play.",
    (
        (8, (EPISODES, Panel("Turns", ((rate("archer_rollout_turns_total", "stage"), "{{stage}}"),), "cps"), TOKENS)),
        (
            8,
            (
                Panel(
                    "Return of the episodes that end now",
                    (
                        (
                            f'(sum by (stage) (rate(archer_rollout_reward_total{{{RUN}, sign="positive"}}[{RANGE}])) - '
                            f'sum by (stage) (rate(archer_rollout_reward_total{{{RUN}, sign="negative"}}[{RANGE}]))) / '
                            f"(sum by (stage) (rate(archer_rollout_episodes_total{{{RUN}}}[{RANGE}])) > 0)",
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Outcomes",
                    ((rate("archer_rollout_outcomes_total", "stage, outcome"), "{{stage}}: {{outcome}}"),),
                    "cps",
                ),
                Panel(
                    "Turns of an episode",
                    (
                        (mean("archer_rollout_episode_turns", "stage"), "mean, {{stage}}"),
                        (quantile(0.95, "archer_rollout_episode_turns", "stage"), "95%, {{stage}}"),
                    ),
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Time of an action", quantiles("archer_rollout_action_seconds"), "s", "With the wait in the engine."
                ),
                Panel("Time of a step of the environment", quantiles("archer_rollout_env_step_seconds"), "s"),
                Panel("Time until an episode is stored", quantiles("archer_rollout_append_seconds"), "s"),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Busy engines",
                    ((f"rate(archer_rollout_engine_busy_seconds_total{{{RUN}}}[{RANGE}])", "{{name}}"),),
                    "percentunit",
                    "Share of the time in which an engine has a request.",
                    most=1.0,
                ),
                Panel(
                    "In flight",
                    (
                        (gauge("archer_rollout_episodes_in_flight", "sum"), "episodes"),
                        (gauge("archer_pool_requests_in_flight"), "requests for fresh actions"),
                        (gauge("archer_pool_waiting_requests"), "waiting requests"),
                    ),
                    "none",
                ),
                Panel("Workers", ((gauge("archer_pool_workers", "sum", "state"), "{{state}}"),), "none", kind="bars"),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Faulty actions",
                    (
                        (rate("archer_rollout_invalid_actions_total"), "not understood"),
                        (rate("archer_rollout_rejected_calls_total"), "no tool call"),
                        (rate("archer_rollout_endless_thoughts_total"), "thought without an end"),
                    ),
                    "cps",
                ),
                Panel(
                    "Episodes cut or dropped",
                    (
                        (rate("archer_rollout_window_truncations_total"), "cut at the context window"),
                        (rate("archer_rollout_env_failures_total"), "dropped"),
                        (rate("archer_pool_lost_episodes_total"), "played again after a loss"),
                    ),
                    "cps",
                ),
                Panel(
                    "Fresh actions",
                    ((rate("archer_rollout_fresh_actions_total", "name"), "{{name}}"),),
                    "cps",
                    "Actions per second at replayed states.",
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "vLLM: requests",
                    (
                        (gauge("vllm:num_requests_running", "sum"), "running"),
                        (gauge("vllm:num_requests_waiting", "sum"), "waiting"),
                    ),
                    "none",
                ),
                Panel(
                    "vLLM: key-value cache",
                    ((gauge("vllm:kv_cache_usage_perc", by="name"), "{{name}}"),),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "vLLM: hits of the prefix cache",
                    (
                        (
                            f"sum(rate(vllm:prefix_cache_hits_total{{{RUN}}}[{RANGE}])) / "
                            f"(sum(rate(vllm:prefix_cache_queries_total{{{RUN}}}[{RANGE}])) > 0)",
                            "hits",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Memory of the workers",
                    ((gauge("process_resident_memory_bytes", by="name", where='role="rollout"'), "{{name}}"),),
                    "bytes",
                ),
                Panel(
                    "GPU memory",
                    ((gauge("archer_gpu_memory_used_bytes", by="name, gpu"), "{{name}} {{gpu}}"),),
                    "bytes",
                    gpu=True,
                ),
                Panel(
                    "GPU utilisation",
                    ((gauge("archer_gpu_utilization_ratio", by="name, gpu"), "{{name}} {{gpu}}"),),
                    "percentunit",
                    gpu=True,
                    most=1.0,
                ),
            ),
        ),
    ),
)
