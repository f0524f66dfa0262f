"""The dashboard of the learner: steps, losses and values."""

from __future__ import annotations

from panels import NATS, RANGE, RUN, Dashboard, Panel, each, gauge, mean, quantile, rate
from shared import LOSSES, PHASES, STALENESS

LEARNER = Dashboard(
    "archer-learner",
    "ArCHer: learner",
    "Steps, losses and values.",
    (
        (
            8,
            (
                PHASES,
                Panel(
                    "Samples",
                    ((rate("archer_learner_samples_total", "phase"), "{{phase}}"),),
                    "cps",
                    "Turns per second, over all ranks.",
                ),
                LOSSES,
            ),
        ),
        (
            8,
            (
                Panel(
                    "Time of a step",
                    (
                        (mean("archer_learner_step_seconds", "phase"), "mean, {{phase}}"),
                        (quantile(0.95, "archer_learner_step_seconds", "phase"), "95%, {{phase}}"),
                    ),
                    "s",
                ),
                Panel(
                    "Waiting for fresh actions",
                    ((f"max by (phase) (rate(archer_learner_wait_seconds_total{{{RUN}}}[{RANGE}]))", "{{phase}}"),),
                    "percentunit",
                    "Share of the time.",
                ),
                Panel(
                    "Busy ranks",
                    ((f"rate(archer_learner_busy_seconds_total{{{RUN}}}[{RANGE}])", "{{name}}"),),
                    "percentunit",
                    "Share of the time in gradient steps.",
                    most=1.0,
                ),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Values",
                    each(
                        "archer_learner_critic_",
                        q="Q of the data",
                        v="V",
                        target="target of Q",
                        value_start="V at the start",
                        return_start="return from the start",
                    ),
                ),
                Panel(
                    "The critic on episodes that it has not trained on",
                    each(
                        "archer_learner_critic_",
                        explained_variance_ratio="explained variance",
                        correlation="correlation with the return",
                        bias="bias",
                    ),
                ),
                Panel("Advantage", each("archer_learner_actor_", advantage="mean", advantage_std="standard deviation")),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Entropy and divergence",
                    each(
                        "archer_learner_actor_",
                        entropy_nats="entropy",
                        kl_nats="from the engines' policy",
                        kl_to_clone_nats="from the clone",
                    ),
                    NATS,
                    "Per token.",
                ),
                Panel(
                    "Norm of the gradient",
                    each("archer_learner_", critic_norm="critic", actor_norm="policy"),
                    text="Before it is clipped.",
                    log=True,
                ),
                Panel(
                    "Cloning",
                    each(
                        "archer_learner_clone_",
                        token_nll_nats="action token",
                        held_out_action_loss_nats="action token, held out",
                        observation_nll_nats="observation token",
                    ),
                    NATS,
                ),
            ),
        ),
        (
            8,
            (
                STALENESS,
                Panel(
                    "Samples that no policy wrote",
                    (
                        (
                            f"{rate('archer_learner_unwritten_samples_total', 'phase')} / "
                            f"({rate('archer_learner_samples_total', 'phase')} > 0)",
                            "{{phase}}",
                        ),
                    ),
                    "percentunit",
                    "Share of demonstrations and imported episodes.",
                    most=1.0,
                ),
                Panel("Time of a checkpoint", ((mean("archer_learner_checkpoint_seconds"), "mean"),), "s"),
            ),
        ),
        (
            8,
            (
                Panel(
                    "Memory of the ranks",
                    ((gauge("process_resident_memory_bytes", by="name", where='role="learner"'), "{{name}}"),),
                    "bytes",
                ),
                Panel(
                    "GPU memory",
                    (
                        (
                            gauge("archer_gpu_memory_used_bytes", by="name, gpu", where='role="learner"'),
                            "{{name}} {{gpu}}",
                        ),
                    ),
                    "bytes",
                    gpu=True,
                ),
                Panel(
                    "GPU utilisation",
                    (
                        (
                            gauge("archer_gpu_utilization_ratio", by="name, gpu", where='role="learner"'),
                            "{{name}} {{gpu}}",
                        ),
                    ),
                    "percentunit",
                    gpu=True,
                    most=1.0,
                ),
            ),
        ),
    ),
)
