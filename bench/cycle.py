"""Measure the wall time of one cycle of the paper's schedule, split by phase.

The cycle is the authors' default schedule: 128 episodes of Twenty Questions, then 50 critic steps and 3 actor steps of
256 samples (turns) each, with one fresh action of up to 32 tokens per sample. The policy has about 1M parameters and
the critic 0.6M. The program starts a run (`archer train`) and excludes its first cycle, in which caches and workers
warm up.

With `--unit episode` the 256 turns of a step are those of whole episodes, which share one forward pass. With `--unit
turn`, as in the authors' code, they are drawn independently from replay; fewer of them then share an episode.

The engines generate the fresh actions of later steps while the learner computes earlier ones. The column `wait` shows
the time in which the learner waits for them. The learner has two ranks of one thread each (`--ranks`), because the
authors' figures were measured with two threads on two cores.
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
# An episode has at most 20 turns, and few episodes of an untrained policy are shorter.
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
}
# The engines compute in float32. The log-probabilities of a bfloat16 learner differ from theirs by rounding: by 0.04 at
# the first broadcast, against 3e-6 for a float32 learner.
TOLERANCE: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {"learner.broadcast.tolerance": 0.5}}
# Measured with the authors' published code on two cores of the same kind.
AUTHORS_SECONDS = {"rollout": 20.0, "critic": 374.0, "actor": 21.0, "cycle": 431.0}
AUTHORS_SAMPLES = {"critic": CRITIC_STEPS * BATCH, "actor": ACTOR_STEPS * BATCH}
PHASES = ("rollout", "critic", "actor", "broadcast")

COLUMNS = {
    "phase": "phase",
    "seconds": "seconds",
    "wait": "waiting for fresh actions, s",
    "samples": "samples",
    "samples_per_second": "samples/s",
    "authors_seconds": "authors' code, s",
    "authors_samples_per_second": "authors', samples/s",
    "ratio": "ratio",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--unit", choices=list(BATCHES), default="episode", help="how the turns of a step are drawn")
    options.add_argument("--cycles", type=int, help="number of measured cycles; by default 3, with --quick 1")
    options.add_argument("--ranks", type=int, default=2, help="number of learner processes, with one thread each")
    options.add_argument("--dtype", choices=list(TOLERANCE), default="float32", help="precision of the learner")
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
    say(f"wrote {report('cycle', arguments, table, variant=variant, settings=settings, cycles=metrics)}")


def _draws(unit: str) -> dict[str, Any]:
    return {"unit": unit, "batch": BATCHES[unit]}


def _run(folder: Path, settings: dict[str, Any], cycles: int, seed: int) -> list[dict[str, Any]]:
    """Return the cycle rows of a run in `folder`. Exits the program if the run fails."""
    settings = {**settings, "name": "cycle", "cycles": cycles, "seed": seed, "runs_dir": str(folder)}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    say(f"archer train demo, {cycles} cycles")
    command = [str(Path(sys.executable).with_name("archer")), "train", "demo", *overrides]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed with status {done.returncode}; its output above has the cause")
    lines = (folder / "cycle" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "cycle"]


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """Return seconds, waiting seconds and samples of each phase, and the total seconds."""
    seconds = {name: metrics[f"seconds/{name}"] for name in PHASES}
    waits = {f"{name}_wait": metrics[f"{name}/wait_seconds"] for name in AUTHORS_SAMPLES}
    samples = {f"{name}_samples": metrics[f"{name}/samples"] for name in AUTHORS_SAMPLES}
    return {**seconds, **waits, **samples, "cycle": sum(seconds.values())}


def _row(phase: str, figures: dict[str, float]) -> dict[str, Any]:
    """Return a phase's row with the authors' figures; `ratio` compares rates if the phase has samples, else seconds."""
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
