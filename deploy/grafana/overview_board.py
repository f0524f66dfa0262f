"""The overview: is the run healthy, and how fast is it?"""

from __future__ import annotations

from dataclasses import replace

from panels import RUN, Dashboard, Panel, gauge
from shared import EPISODES, FILL, IDLE, LOSSES, PHASES, RETURNS, STALENESS, SUCCESS, TOKENS

OVERVIEW = Dashboard(
    "archer-overview",
    "ArCHer: overview",
    "Is the run healthy, and how fast is it?",
    (
        (
            4,
            (
                Panel(
                    "Now", ((f"archer_run_phase{{{RUN}}} == 1", "{{phase}}"),), "none", kind="stat", width=3, names=True
                ),
                Panel(
                    "Cycles",
                    ((gauge("archer_run_cycle"), "done"), (gauge("archer_run_cycles"), "of")),
                    "none",
                    kind="stat",
                    width=3,
                ),
                replace(RETURNS, kind="stat", width=4),
                replace(SUCCESS, kind="stat", width=4),
                Panel(
                    "Missing processes",
                    ((gauge("archer_processes", "sum", where='state="missing"'), "missing"),),
                    "none",
                    kind="stat",
                    width=2,
                    good=0,
                ),
                Panel(
                    "Restarts, 1 h",
                    ((f"sum(increase(archer_process_restarts_total{{{RUN}}}[1h]))", "restarts"),),
                    "none",
                    kind="stat",
                    width=2,
                    good=0,
                ),
                Panel(
                    "Since the last step",
                    ((f"time() - max(archer_run_last_event_timestamp_seconds{{{RUN}}})", "age"),),
                    "s",
                    kind="stat",
                    width=2,
                    good=600,
                ),
                Panel(
                    "Checkpoint age",
                    ((f"time() - max(archer_run_checkpoint_timestamp_seconds{{{RUN}}})", "age"),),
                    "s",
                    kind="stat",
                    width=2,
                    good=7200,
                ),
                Panel(
                    "Proof gap",
                    (
                        (
                            f"max(archer_learner_proof_gap_nats{{{RUN}}} / "
                            f"archer_learner_proof_tolerance_nats{{{RUN}}})",
                            "gap",
                        ),
                    ),
                    "percentunit",
                    "Share of the tolerance that the last proof used.",
                    kind="stat",
                    width=2,
                    good=0.5,
                ),
            ),
        ),
        (7, (RETURNS, SUCCESS, PHASES)),
        (7, (EPISODES, TOKENS, IDLE)),
        (7, (LOSSES, STALENESS, FILL)),
    ),
)
