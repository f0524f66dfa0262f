"""The entry points of a learner rank. Importing them loads neither torch nor DeepSpeed nor vLLM."""

from __future__ import annotations

import os

from buffer.quick_imports import quick_imports
from learner.train_args import TrainArgs


def run_rank(settings: dict[str, TrainArgs]) -> None:
    """Run one rank. Ray Train calls it on each rank with the dict {"args": ...}."""
    with quick_imports():
        from learner.stages import train_function

    train_function(settings["args"])


def run_alone(args: TrainArgs) -> None:
    """Run the only rank of an inline run, in this process and without Ray.

    The process group of this one rank remains for later runs of the process, because DeepSpeed keeps the first group
    that it sees.
    """
    with quick_imports():
        import torch.distributed as dist

        from learner.stages import train_function

    if not dist.is_initialized():
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # DeepSpeed reads them
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    train_function(args)
