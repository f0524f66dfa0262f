"""Measure critic and actor samples per second of the learner, with packed and with one-by-one encoding.

A sample is one turn of one episode. Packed, all turns of an episode and their fresh actions share one pass. One by one,
every turn is a separate sample, and its history is encoded again. Both take the same step of `Archer` on DeepSpeed
engines: layout, passes, gradient clipping, AdamW, the target's average. The program first checks that the losses and
gradient norms of the two agree. Each contender then runs with the micro-batch that was fastest in trials, its rows
sorted by length. The critic has two one-by-one contenders: `separate` has a sequence for each state and each action, as
in other libraries; `rows` has a row for each turn, in which action and fresh action share the state. The ratio is that
to the faster one. The ratio of CPU time is printed too, because a busy machine disturbs it less than the wall time.

The share of the machine is the rate of the models' matrix products over useful tokens (no pads, no attention scores),
divided by the rate of one matrix product on the same ranks, at the model's width and at a large size.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import medians, parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.learner_meters import Meter, matmul_rate, step_memory, synchronize
from bench.learner_workload import OBSERVATION_TOKENS, PAD, SCALES, Case, build, make_row, one_by_one
from learner.algorithms.archer import Archer
from learner.algorithms.phases import Draws
from learner.engine.accelerator import deepspeed
from learner.passes.precision import DTYPES, Precision
from learner.passes.rows import Row, deal

TURNS = (5, 10, 20)
# The largest relative gap in losses and gradient norms between contenders that compute the same function.
TOLERANCE = 1e-4
MATMUL_ROWS, LARGE = 1024, 2048
TIMEOUT = timedelta(seconds=900)

COLUMNS = {
    "turns": "turns",
    "observation": "observation",
    "ranks": "ranks",
    "phase": "phase",
    "one_by_one_samples_per_second": "one by one, samples/s",
    "packed_samples_per_second": "packed, samples/s",
    "ratio": "ratio",
    "cpu_ratio": "of CPU time",
    "flops_ratio": "of FLOPs",
    "separate_ratio": "to separate",
    "packed_tokens_per_second": "packed, tokens/s",
}
USE = {
    "turns": "turns",
    "observation": "observation",
    "ranks": "ranks",
    "phase": "phase",
    "packed_of_model_width": "packed, of product at width",
    "packed_of_large": "of large product",
    "one_by_one_of_model_width": "one by one, of product at width",
    "packed_padding": "packed, padding",
    "one_by_one_padding": "one by one, padding",
    "packed_mib": "packed, MiB",
    "one_by_one_mib": "one by one, MiB",
}


@dataclass
class Contender:
    """One encoding: its algorithm, its rows, and the micro-batch sizes to try, in rows."""

    name: str
    algorithm: Archer
    rows: list[Row]
    micro_batches: Sequence[int]

    def __post_init__(self) -> None:
        self.engines = self.algorithm.engines
        self.samples = sum(len(row.turns) for row in self.rows)

    def step(self, phase: str, micro_batch: int) -> dict[str, float]:
        """Take one step over all rows; return its metrics, `seconds` of the slowest rank and `cpu_seconds` of all."""
        device = self.engines.policy.device
        share = deal(self.rows, dist.get_world_size(), micro_batch)[dist.get_rank()]
        settings = Draws(phase, 1, len(self.rows))
        dist.barrier()
        synchronize(device)
        begin, cpu = time.perf_counter(), time.process_time()
        result = self.algorithm.step(settings, share, self.samples, version=1)
        synchronize(device)
        seconds = torch.tensor(time.perf_counter() - begin, device=device, dtype=torch.float64)
        cpu_seconds = torch.tensor(time.process_time() - cpu, device=device, dtype=torch.float64)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        dist.all_reduce(cpu_seconds)
        return {**result.metrics, "seconds": seconds.item(), "cpu_seconds": cpu_seconds.item()}


def contenders(case: Case, rows: list[Row], dtype: Precision) -> list[Contender]:
    """Return the contenders, the packed one first."""
    turns = one_by_one(rows)
    return [
        Contender("packed", build(case, dtype, separate=False), rows, (16, 8, 4, 2)[: case.trials]),
        Contender("rows", build(case, dtype, separate=False), turns, (16, 8, 32, 4)[: case.trials]),
        Contender("separate", build(case, dtype, separate=True), turns, (8, 4, 16)[: case.trials]),
    ]


def check(field: Sequence[Contender]) -> float:
    """Return the largest relative gap between the first steps of the contenders.

    Raises:
        ValueError: the gap is above `TOLERANCE`.
    """
    largest = 0.0
    # The actor is first: its step does not change the critic, but a critic step would change the actor's loss.
    for phase, names in (("actor", ("loss", "norm")), ("critic", ("q_loss", "v_loss", "target", "norm"))):
        # Only first steps are compared. AdamW's first step has full length even where the gradient is only rounding
        # error, so the weights of the contenders differ from the second step on.
        steps = (contender.step(phase, contender.micro_batches[0]) for contender in field)
        first, *others = ([metrics[f"{phase}/{name}"] for name in names] for metrics in steps)
        for contender, other in zip(field[1:], others, strict=True):
            gaps = [abs(a - b) / abs(a) for a, b in zip(first, other, strict=True)]
            if not max(gaps) <= TOLERANCE:
                raise ValueError(
                    f"{phase} step: {names} are {first} packed and {other} with {contender.name!r}, a relative gap "
                    f"above {TOLERANCE}; the contenders compute different functions, see learner/passes/layout.py"
                )
            largest = max(largest, *gaps)
    return largest


def fastest(contender: Contender, phase: str) -> tuple[float, int]:
    """Return seconds and micro-batch of the fastest step, after a warm-up step."""
    contender.step(phase, contender.micro_batches[0])
    return min((contender.step(phase, size)["seconds"], size) for size in contender.micro_batches)


def measure(case: Case, turns: int, phase: str, field: Sequence[Contender], rates: dict[str, float]) -> dict[str, Any]:
    """Return one row: medians over the repeats, in which the contenders take turns."""
    # The actor's encoder is always that of a causal model, so its two one-by-one contenders are the same.
    field = field if phase == "critic" else field[:2]
    trials = {contender.name: fastest(contender, phase) for contender in field}
    counts, memory = {}, {}
    for contender in field:
        device = contender.engines.policy.device
        step = partial(contender.step, phase, trials[contender.name][1])
        meter = Meter(contender.engines, PAD)
        step()
        counts[contender.name] = meter.totals(device)
        memory[contender.name] = step_memory(step, device)
    best = min((c.name for c in field[1:]), key=lambda name: trials[name][0])
    runs = []
    for _ in range(case.repeats):
        steps = {contender.name: contender.step(phase, trials[contender.name][1]) for contender in field}
        run = {}
        for shown, name in {"packed": "packed", "one_by_one": best, "separate": field[-1].name}.items():
            seconds = steps[name]["seconds"]
            run[f"{shown}_samples_per_second"] = field[0].samples / seconds
            run[f"{shown}_tokens_per_second"] = counts[name]["useful"] / seconds
            for at, rate in rates.items():
                run[f"{shown}_of_{at}"] = counts[name]["flops"] / seconds / rate
        run["ratio"] = steps[best]["seconds"] / steps["packed"]["seconds"]
        run["cpu_ratio"] = steps[best]["cpu_seconds"] / steps["packed"]["cpu_seconds"]
        run["separate_ratio"] = steps[field[-1].name]["seconds"] / steps["packed"]["seconds"]
        runs.append(run)
    return {
        "turns": turns,
        "observation": case.observation,
        "ranks": case.ranks,
        "phase": phase,
        "episodes": case.episodes,
        **medians(runs),
        "flops_ratio": counts[best]["flops"] / counts["packed"]["flops"],
        "one_by_one_contender": best,
        **{f"{name}_micro_batch": size for name, (_, size) in trials.items()},
        **{f"{shown}_padding": counts[name]["padding"] for shown, name in (("packed", "packed"), ("one_by_one", best))},
        **{f"{shown}_mib": memory[name] for shown, name in (("packed", "packed"), ("one_by_one", best))},
        "runs": runs,
    }


def run_rank(rank: int, case: Case, port: int, out: Path) -> None:
    """Make all measurements of `case`; rank 0 writes them to `out`."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
    torch.set_num_threads(1)
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": case.ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in names.items()}
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", timeout=TIMEOUT, verbose=False)
    rows = []
    for turns in case.turns:
        rng = np.random.default_rng(case.seed + turns)
        episodes = [make_row(rng, case, turns) for _ in range(case.episodes)]
        field = contenders(case, episodes, "float32")
        gap = check(field)
        if case.dtype != "float32":
            field = contenders(case, episodes, case.dtype)
        for phase in ("critic", "actor"):
            width, _, _, feed_forward = SCALES[case.scale]["critic" if phase == "critic" else "policy"]
            device = field[0].engines.policy.device
            rates = {
                "model_width": matmul_rate(MATMUL_ROWS, width, feed_forward, case.dtype, device),
                "large": matmul_rate(LARGE, LARGE, LARGE, case.dtype, device),
            }
            row = measure(case, turns, phase, field, rates)
            row |= {"largest_gap": gap, **{f"gflops_{at}": rate / 1e9 for at, rate in rates.items()}}
            rows.append(row)
            if rank == 0:
                say(
                    f"  {turns} turns, {case.observation} observations, {case.ranks} ranks, {phase}: "
                    f"{row['ratio']:.1f} times one by one (FLOPs: {row['flops_ratio']:.1f})"
                )
    if rank == 0:
        out.write_text(json.dumps(rows))
    dist.destroy_process_group()


def run(case: Case, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `case`, measured in new rank processes."""
    out = folder / "rows.json"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(run_rank, args=(case, port, out), nprocs=case.ranks, start_method="spawn")
    return json.loads(out.read_text())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--turns", type=int, nargs="+", help="turns of an episode")
    options.add_argument("--ranks", type=int, nargs="+", help="learner ranks; on GPUs as many as there are, at most")
    options.add_argument("--observations", nargs="+", choices=list(OBSERVATION_TOKENS), help="their lengths")
    options.add_argument("--episodes", type=int, help="episodes of a step")
    options.add_argument("--fresh", type=int, default=1, help="fresh actions per state; one is the paper's")
    options.add_argument("--repeats", type=int, help="timed steps of each contender; the medians are shown")
    options.add_argument("--scale", choices=list(SCALES), help="size of the models; demo, and gpt2 on GPUs")
    options.add_argument("--dtype", choices=list(DTYPES), help="while timing; float32, and bfloat16 on GPUs")
    arguments = options.parse_args()
    quick, gpus = arguments.quick, torch.cuda.device_count()
    ranks = arguments.ranks or [n for n in ((1,) if quick else (1, 2)) if not gpus or n <= gpus]
    base = Case(
        turns=arguments.turns or (TURNS[1:2] if quick else TURNS),
        observation="short",
        ranks=1,
        episodes=arguments.episodes or (8 if quick else 16),
        fresh=arguments.fresh,
        trials=2 if quick else 4,
        repeats=arguments.repeats or (3 if quick else 5),
        scale=arguments.scale or ("gpt2" if gpus else "demo"),
        dtype=arguments.dtype or ("bfloat16" if gpus else "float32"),
        seed=arguments.seed,
    )
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if gpus else "cpu",
        "settings": asdict(base),
        "sizes": SCALES[base.scale],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for observation in arguments.observations or OBSERVATION_TOKENS:
            for count in ranks:
                rows += run(replace(base, observation=observation, ranks=count), Path(scratch))
                # The whole program takes most of an hour, so each case is saved at once.
                path = report("learner", arguments, rows, **about)
    print_table("Samples per second", COLUMNS, rows)
    print_table("Use of the machine", USE, rows)
    say(f"written to {path}")


if __name__ == "__main__":
    main()
