"""Measure the memory that a learner process of ArCHer holds, and that a step takes, under each configuration option.

The program makes a policy from scratch. The critic starts from the policy's weights and the KL to the clone is on, so a
rank holds policy, critic, target critic and reference. For each option, new rank processes take a step of critic and
actor and then count: `weights` is every parameter of the four once, even if several share it; `held` is all tensors
between steps, which adds gradients and optimizer states; `step` is the peak of a step beyond `held`. The loss of the
first critic step is printed too. Except for rounding it is the same for all whole models and for all adapters; the two
groups differ because their heads are initialised from different random numbers.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from bench.learner_meters import step_memory
from bench.learner_workload import Case, make_row
from learner.algorithms.archer import Archer
from learner.algorithms.setup import Setup
from learner.config import LearnerConfig
from learner.passes.rows import deal

# Width, layers and heads for a number of parameters in millions; feed-forward layers are 2.75 times as wide.
SIZES = {1: (128, 5, 4), 10: (320, 8, 5), 60: (640, 12, 10)}
OPTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "whole models": (1, {}),
    "dtype=bfloat16": (1, {"dtype": "bfloat16"}),
    "activation_checkpointing": (1, {"activation_checkpointing": True}),
    "lora": (1, {"lora": {"rank": 16}}),
    "lora, dtype=bfloat16": (1, {"lora": {"rank": 16}, "dtype": "bfloat16"}),
    "2 ranks, zero_stage=0": (2, {}),
    "2 ranks, zero_stage=1": (2, {"zero_stage": 1}),
    "2 ranks, zero_stage=2": (2, {"zero_stage": 2}),
    "2 ranks, zero_stage=3": (2, {"zero_stage": 3}),
    "2 ranks, zero_stage=3, lora": (2, {"zero_stage": 3, "lora": {"rank": 16}}),
}
QUICK = ("whole models", "lora")
TURNS, EPISODES = 10, 4
TIMEOUT = timedelta(seconds=900)

COLUMNS = {
    "option": "option",
    "weights_mb": "weights, MB",
    "of_policy": "of the policy's own",
    "held_mb": "held, MB",
    "step_mb": "step, MB",
    "critic_loss": "first Q loss",
}


def storages(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of all storages of `tensors`, each counted once."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(found.values())


def run_rank(rank: int, ranks: int, store: str, model: str, settings: dict[str, Any], out: str) -> None:
    """Build the engines, take steps and count; rank 0 writes the figures of the rank that holds most to `out`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=TIMEOUT)
    config = LearnerConfig.model_validate(
        settings | {"critic": {"warmup_cycles": 0, "lr": 1e-4}, "actor": {"kl_to_clone": 0.1, "lr": 1e-4}}
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    torch.manual_seed(0)
    algorithm = Archer(Setup(model, model, tokenizer, config, 1.0))
    case = Case([TURNS], "short", ranks, EPISODES, 1, 1, 1, "demo", config.dtype, seed=0)
    rows = [make_row(np.random.default_rng(seed), case, TURNS) for seed in range(EPISODES)]
    share, samples = deal(rows, ranks, 1)[rank], sum(len(row.turns) for row in rows)
    phases = {phase.name: phase for phase in algorithm.phases(0)}

    def step() -> float:
        result = algorithm.step(phases["critic"], share, samples, version=1)
        algorithm.step(phases["actor"], share, samples, version=1)
        return result.metrics["critic/q_loss"]

    loss = step()
    engines = algorithm.engines
    assert engines.reference is not None
    modules = (engines.policy.module, engines.critic.module, engines.target.module, engines.reference.module)
    weights = storages(getattr(p, "ds_tensor", p).data for module in modules for p in module.parameters())
    gc.collect()
    held = storages(thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
    most = torch.tensor([weights, held], dtype=torch.float64)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    taken = step_memory(step, torch.device("cpu")) * 2**20
    if rank == 0:
        figures = {"weights_mb": most[0].item() / 1e6, "held_mb": most[1].item() / 1e6, "step_mb": taken / 1e6}
        Path(out).write_text(json.dumps(figures | {"critic_loss": loss}))
    dist.barrier()
    dist.destroy_process_group()


def measure(name: str, model: Path, folder: Path) -> dict[str, Any]:
    """Return the row of one option."""
    ranks, settings = OPTIONS[name]
    say(name)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch) / "figures.json"
        arguments = (ranks, str(Path(scratch) / "store"), str(model), settings, str(out))
        mp.start_processes(run_rank, args=arguments, nprocs=ranks, start_method="spawn")
        return {"option": name, "ranks": ranks, **json.loads(out.read_text())}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--size", type=int, choices=list(SIZES), help="millions of parameters of the policy")
    arguments = options.parse_args()
    disable_progress_bar()
    size = arguments.size or (1 if arguments.quick else 10)
    width, layers, heads = SIZES[size]
    shape = TinyModelConfig(
        hidden_size=width, layers=layers, heads=heads, intermediate_size=width * 11 // 4, max_positions=1024
    )
    texts = [f"word{i} and word{i + 1} of word{i}\n" for i in range(2000)]
    with tempfile.TemporaryDirectory() as scratch:
        model = build_tiny_model(texts, Path(scratch) / "model", shape, seed=arguments.seed)
        own = sum(file.stat().st_size for file in model.glob("*.safetensors")) / 1e6
        rows = [measure(name, model, Path(scratch)) for name in (QUICK if arguments.quick else OPTIONS)]
    for row in rows:
        row["of_policy"] = row["weights_mb"] / own
    print_table(f"Policy, critic, target and reference of {own:.0f} MB each, per process", COLUMNS, rows)
    say(f"written to {report('memory', arguments, rows, policy_mb=own)}")


if __name__ == "__main__":
    main()
