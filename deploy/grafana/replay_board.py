"""The dashboard of replay: shards, logs and the limiter."""

from __future__ import annotations

from panels import RANGE, RUN, Dashboard, Panel, gauge, quantiles, rate

REPLAY = Dashboard(
    "archer-replay",
    "ArCHer: replay",
    "Shards, their logs, and the limiter.",
    (
        (
            8,
            (
                Panel(
                    "Turns held",
                    (
                        (gauge("archer_replay_turns", by="name"), "{{name}}"),
                        (gauge("archer_replay_capacity_turns", by="name"), "capacity of {{name}}"),
                    ),
                ),
                Panel("Episodes held", ((gauge("archer_replay_episodes", by="name"), "{{name}}"),)),
                Panel(
                    "Bytes",
                    (
                        (gauge("archer_replay_resident_bytes", by="name"), "memory of {{name}}"),
                        (gauge("archer_replay_log_bytes", by="name"), "log of {{name}}"),
                    ),
                    "bytes",
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Appended",
                    ((rate("archer_replay_appended_episodes_total", "name"), "{{name}}"),),
                    "cps",
                    "Episodes per second.",
                ),
                Panel(
                    "Drawn",
                    ((rate("archer_replay_draws_total", "name"), "{{name}}"),),
                    "cps",
                    "Turns or episodes per second.",
                ),
                Panel(
                    "Evicted, known already, refused",
                    (
                        (rate("archer_replay_evicted_episodes_total"), "evicted"),
                        (rate("archer_replay_duplicate_episodes_total"), "known already"),
                        (rate("archer_replay_refused_appends_total"), "refused batches"),
                    ),
                    "cps",
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Time in which the limiter blocks",
                    ((f"max by (side) (rate(archer_limiter_blocked_seconds_total{{{RUN}}}[{RANGE}]))", "{{side}}"),),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Calls that wait at the limiter",
                    ((gauge("archer_limiter_waiting_calls", by="side"), "{{side}}"),),
                    "none",
                ),
                Panel(
                    "Samples per insert",
                    (
                        (
                            f"max by (view) (archer_limiter_sampled_turns_total{{{RUN}}}) / "
                            f"on () group_left () max(archer_limiter_inserted_turns_total{{{RUN}}})",
                            "{{view}}",
                        ),
                    ),
                    text="Turns ever sampled of each view, over turns ever inserted.",
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Time of an append",
                    quantiles("archer_replay_append_seconds"),
                    "s",
                    "In the shard, with the write to its log.",
                ),
                Panel(
                    "Age of the oldest episode",
                    (
                        (
                            f"time() - (min by (name) (archer_replay_oldest_episode_timestamp_seconds{{{RUN}}}) > 0)",
                            "{{name}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Memory of the processes",
                    (
                        (
                            gauge("process_resident_memory_bytes", by="name", where='role=~"shard|limiter|replica"'),
                            "{{name}}",
                        ),
                    ),
                    "bytes",
                ),
            ),
        ),
    ),
)
