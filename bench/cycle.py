"""Wall time of one cycle of the paper's schedule, split by phase, and what of it overlapped.

128 episodes of Twenty Questions, 50 critic and 3 actor steps of 256 single turns each, with one fresh action of up to
32 tokens at every one of them: the authors' default schedule, at about 1M parameters in the policy and 0.6M in the
critic. It is a real run (`archer train`), whose first cycle, in which caches and workers warm up, isn't counted.

The engines write the fresh actions of later steps while the learner is at work on earlier ones; what the learner still
waits for them is shown as `wait`. The rest of a phase is its own work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import medians, parser, print_table, report, say  # isort: skip - sets the threads first

EPISODES, CRITIC_STEPS, ACTOR_STEPS, BATCH = 128, 50, 3, 256
SETTINGS = {
    "env.id": "twenty_questions",
    "env.kwargs": "{}",
    "episodes_per_cycle": EPISODES,
    "demonstrations.keep_in_replay": "false",
    "demonstrations.episodes": 256,
    "rollout.sampling.max_tokens": 32,
    "rollout.episodes_at_once": EPISODES,
    "learner.clone.steps": 60,
    "learner.critic.build.hidden_size": 128,
    "learner.critic.build.layers": 2,
    "learner.critic.build.intermediate_size": 256,
    "learner.critic.unit": "turn",
    "learner.critic.batch": BATCH,
    "learner.critic.steps_per_cycle": CRITIC_STEPS,
    "learner.critic.n_step": 1,
    "learner.critic.warmup_cycles": 0,
    "learner.actor.unit": "turn",
    "learner.actor.batch": BATCH,
    "learner.actor.steps_per_cycle": ACTOR_STEPS,
    "learner.actor.fresh_per_state": 1,
    "learner.actor.kl_stop": "null",
    "evaluation.episodes": 1,
    "checkpoint.every": 1000,
    "metrics.port": 0,
}
# The authors' code on two cores of the same kind: shared FINDINGS, "The authors' research code on the same machine".
AUTHORS = {"rollout": 20.0, "critic": 374.0, "actor": 21.0, "cycle": 431.0}
SAMPLES = {"critic": CRITIC_STEPS * BATCH, "actor": ACTOR_STEPS * BATCH}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    cycles = 1 + (1 if arguments.quick else 3)
    with tempfile.TemporaryDirectory(prefix="cycle") as folder:
        rows = _run(Path(folder), cycles, arguments.seed)
    figures = medians([_figures(row["metrics"]) for row in rows[1:]])
    table = [
        {
            "phase": phase,
            "seconds": figures[phase],
            "wait": figures.get(f"{phase}_wait", 0.0),
            "samples_per_second": SAMPLES[phase] / figures[phase] if phase in SAMPLES else float("nan"),
            "authors_seconds": AUTHORS.get(phase, float("nan")),
            "ratio": AUTHORS.get(phase, float("nan")) / figures[phase],
        }
        for phase in ("rollout", "critic", "actor", "broadcast", "cycle")
    ]
    print_table(
        f"One cycle of the paper's schedule, median of {cycles - 1}",
        {
            "phase": "phase",
            "seconds": "seconds",
            "wait": "of it waiting for fresh actions",
            "samples_per_second": "samples/s",
            "authors_seconds": "authors' code, s",
            "ratio": "ratio",
        },
        table,
    )
    say(f"written to {report('cycle', arguments, table, settings=SETTINGS, cycles=[row['metrics'] for row in rows])}")


def _run(folder: Path, cycles: int, seed: int) -> list[dict[str, Any]]:
    """The cycle rows of a run in `folder`. Ends the program where the run fails."""
    settings = {**SETTINGS, "name": "cycle", "cycles": cycles, "seed": seed, "runs_dir": str(folder)}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    say(f"archer train demo, {cycles} cycles")
    command = [str(Path(sys.executable).with_name("archer")), "train", "demo", *overrides]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed with status {done.returncode}; what it said stands above")
    lines = (folder / "cycle" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "cycle"]


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """Seconds of each phase, of waiting in it, and of all together."""
    phases = {name: metrics[f"seconds/{name}"] for name in ("rollout", "critic", "actor", "broadcast")}
    waits = {f"{name}_wait": metrics[f"{name}/wait_seconds"] for name in ("critic", "actor")}
    return {**phases, **waits, "cycle": sum(phases.values())}


if __name__ == "__main__":
    main()
