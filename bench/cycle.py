"""Wall time of one cycle of the paper's schedule, split by phase, and what of it overlapped.

128 episodes of Twenty Questions, 50 critic and 3 actor steps of 256 samples (turns) each, with one fresh action of up
to 32 tokens at every one of them: the authors' default schedule, at about 1M parameters in the policy and 0.6M in the
critic. It is a real run (`archer train`), whose first cycle, in which caches and workers warm up, isn't counted.

A step's 256 turns are those of whole episodes, which share one pass (`--unit episode`), or are drawn one by one from
all that replay holds (`--unit turn`, as the authors do), where fewer of them fall into one episode and less is shared.

The engines write the fresh actions of later steps while the learner is at work on earlier ones; what the learner still
waits for them is shown as `wait`. The rest of a phase is its own work. The learner has two ranks of one thread
(`--ranks`), since the authors' figures are of two threads on two cores.
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
# Episodes of 20 turns at most, and hardly one of a fresh policy is shorter.
BATCHES = {"episode": 13, "turn": BATCH}
SETTINGS = {
    "env.id": "twenty_questions",
    "env.kwargs": "{}",
    "episodes_per_cycle": EPISODES,
    "demonstrations.keep_in_replay": "false",
    "demonstrations.episodes": 256,
    "rollout.sampling.max_tokens": 32,
    "rollout.episodes_at_once": EPISODES,
    "learner.micro_batch": 16,
    "learner.clone.steps": 60,
    "learner.critic.build.hidden_size": 128,
    "learner.critic.build.layers": 2,
    "learner.critic.build.intermediate_size": 256,
    "learner.critic.steps_per_cycle": CRITIC_STEPS,
    "learner.critic.n_step": 1,
    "learner.critic.warmup_cycles": 0,
    "learner.actor.steps_per_cycle": ACTOR_STEPS,
    "learner.actor.fresh_per_state": 1,
    "learner.actor.kl_stop": "null",
    "evaluation.episodes": 1,
    "checkpoint.every": 1000,
    "metrics.port": 0,
}
# The engines compute in float32 all the same, so that a learner in bfloat16 is a rounding apart from them: 0.04 at the
# first broadcast, where float32 on both sides is 3e-6 apart.
TOLERANCE: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {"learner.broadcast.tolerance": 0.5}}
# The authors' code on two cores of the same kind: shared FINDINGS, "The authors' research code on the same machine".
AUTHORS_SECONDS = {"rollout": 20.0, "critic": 374.0, "actor": 21.0, "cycle": 431.0}
AUTHORS_SAMPLES = {"critic": CRITIC_STEPS * BATCH, "actor": ACTOR_STEPS * BATCH}
PHASES = ("rollout", "critic", "actor", "broadcast")

COLUMNS = {
    "phase": "phase",
    "seconds": "seconds",
    "wait": "of it waiting for fresh actions",
    "samples": "samples",
    "samples_per_second": "samples/s",
    "authors_seconds": "authors' code, s",
    "authors_samples_per_second": "authors', samples/s",
    "ratio": "ratio",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--unit", choices=list(BATCHES), default="episode", help="how a step's 256 turns are drawn")
    options.add_argument("--cycles", type=int, help="cycles that count; 3, and 1 with --quick")
    options.add_argument("--ranks", type=int, default=2, help="processes of the learner, of one thread each")
    options.add_argument("--dtype", choices=list(TOLERANCE), default="float32", help="the learner computes in it")
    arguments = options.parse_args()
    cycles = 1 + (arguments.cycles or (1 if arguments.quick else 3))
    settings = {
        **SETTINGS,
        "learner.ranks": arguments.ranks,
        "learner.dtype": arguments.dtype,
        **TOLERANCE[arguments.dtype],
        **{
            f"learner.{phase}.{key}": value
            for phase in AUTHORS_SAMPLES
            for key, value in _draws(arguments.unit).items()
        },
    }
    with tempfile.TemporaryDirectory(prefix="cycle") as folder:
        rows = _run(Path(folder), settings, cycles, arguments.seed)
    figures = medians([_figures(row["metrics"]) for row in rows[1:]])
    table = [_row(phase, figures) for phase in (*PHASES, "cycle")]
    print_table(
        f"One cycle of the paper's schedule, draws of {arguments.unit}s, median of {cycles - 1}", COLUMNS, table
    )
    variant = "".join(
        f"-{value}" for name in ("unit", "dtype") if (value := vars(arguments)[name]) != options.get_default(name)
    )
    metrics = [row["metrics"] for row in rows]
    say(f"written to {report('cycle', arguments, table, variant=variant, settings=settings, cycles=metrics)}")


def _draws(unit: str) -> dict[str, Any]:
    return {"unit": unit, "batch": BATCHES[unit]}


def _run(folder: Path, settings: dict[str, Any], cycles: int, seed: int) -> list[dict[str, Any]]:
    """The cycle rows of a run in `folder`. Ends the program where the run fails."""
    settings = {**settings, "name": "cycle", "cycles": cycles, "seed": seed, "runs_dir": str(folder)}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    say(f"archer train demo, {cycles} cycles")
    command = [str(Path(sys.executable).with_name("archer")), "train", "demo", *overrides]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed with status {done.returncode}; what it said stands above")
    lines = (folder / "cycle" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "cycle"]


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """Of each phase seconds, seconds of waiting in it and samples; and the seconds of all together."""
    seconds = {name: metrics[f"seconds/{name}"] for name in PHASES}
    waits = {f"{name}_wait": metrics[f"{name}/wait_seconds"] for name in AUTHORS_SAMPLES}
    samples = {f"{name}_samples": metrics[f"{name}/samples"] for name in AUTHORS_SAMPLES}
    return {**seconds, **waits, **samples, "cycle": sum(seconds.values())}


def _row(phase: str, figures: dict[str, float]) -> dict[str, Any]:
    """One phase beside the authors': the ratio of rates where there are samples, else of seconds."""
    seconds, samples = figures[phase], figures.get(f"{phase}_samples")
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "phase": phase,
        "seconds": seconds,
        "wait": figures.get(f"{phase}_wait"),
        "samples": samples,
    }
    authors_seconds = AUTHORS_SECONDS.get(phase)
    if authors_seconds is not None:
        row |= {"authors_seconds": authors_seconds, "ratio": authors_seconds / seconds}
        if samples is not None:
            rate, authors_rate = samples / seconds, AUTHORS_SAMPLES[phase] / authors_seconds
            row |= {
                "samples_per_second": rate,
                "authors_samples_per_second": authors_rate,
                "ratio": rate / authors_rate,
            }
    return row


if __name__ == "__main__":
    main()
