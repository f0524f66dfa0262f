"""The entry points of a learner rank. Importing them loads neither torch nor DeepSpeed nor vLLM."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from buffer.quick_imports import quick_imports
from learner.train_args import TrainArgs

if TYPE_CHECKING:
    from torch.distributed import TCPStore


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet to form their process group.

    Attributes:
        host, port: address of the store of rank 0.
        ranks: number of ranks.
        timeout_s: seconds after which the meeting, and later each collective operation, fails.
    """

    host: str
    port: int
    ranks: int
    timeout_s: float


def open_store(host: str, ranks: int, timeout_s: float) -> tuple[Meeting, TCPStore]:
    """Return the store at which the ranks meet, and its address. Rank 0 calls it and keeps the store.

    The store listens on `host` alone. PyTorch itself would listen on every address, and at a port that is free only
    until another process takes it.
    """
    with quick_imports():
        from torch.distributed import TCPStore

    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listener.getsockname()[1]
    store = TCPStore(
        host,
        port,
        ranks,
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    return Meeting(host, port, ranks, timeout_s), store


def run_rank(args: TrainArgs, rank: int, meeting: Meeting, store: TCPStore | None = None) -> None:
    """Run one rank to its end, in the process group of all ranks; `store` is that of rank 0."""
    with quick_imports():
        import torch.distributed as dist

        from learner.stages import train_function

    timeout = timedelta(seconds=meeting.timeout_s)
    if store is None:
        store = dist.TCPStore(meeting.host, meeting.port, meeting.ranks, is_master=False, timeout=timeout)
    # DeepSpeed reads them. Ray shows each rank its own GPU only, which is device 0 there.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(meeting.ranks)}
    backend = "nccl" if args.learner.use_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=meeting.ranks, timeout=timeout)
    train_function(args)
    dist.destroy_process_group()  # not after an error: beside a dead rank it could wait, and the error with it


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
