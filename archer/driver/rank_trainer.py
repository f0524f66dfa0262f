"""Ray Train's trainer of the learner's ranks, with fewer processes and imports.

Ray Train's own TorchConfig makes the process that starts the ranks and Ray Train's controller import torch, which takes
two seconds of a core in each. `ProcessGroup` calls the same functions of Ray Train, and imports them in the ranks only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_SHUTDOWN_TIMEOUT_S = 30.0


class RankTrainer(DataParallelTrainer):
    """Starts the ranks without the actor that would split datasets among them: they draw their batches from replay."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, DatasetsCallback)]


@dataclass
class ProcessGroup(BackendConfig):
    """The torch process group of the ranks.

    Attributes:
        backend: "nccl" or "gloo".
        timeout_s: seconds after which a collective operation fails.
    """

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[Backend]:
        return ProcessGroupBackend

    @property
    def train_func_context(self) -> Any:
        return _own_device


class ProcessGroupBackend(Backend):
    """Starts the process group before the ranks train, and ends it after them."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        host, port = worker_group.execute_single(0, get_address_and_port)
        world = len(worker_group)
        settings = {"host": host, "port": port, "backend": backend_config.backend, "world_size": world}
        joining = [
            worker_group.execute_single_async(
                rank, _join, world_rank=rank, timeout_s=backend_config.timeout_s, **settings
            )
            for rank in range(world)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        leaving = worker_group.execute_async(_leave, destroy=len(worker_group) > 1)
        try:
            ray.get(leaving, timeout=_SHUTDOWN_TIMEOUT_S)
        except GetTimeoutError:
            logging.getLogger(__name__).warning("the ranks did not leave their process group in time")


def _join(*, world_rank: int, world_size: int, host: str, port: int, backend: str, timeout_s: int) -> None:
    from ray.train.torch import config  # late: imports torch

    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(backend, world_rank, world_size, "env://", timeout_s)


def _leave(*, destroy: bool) -> None:
    from ray.train.torch import config  # late: imports torch

    config._shutdown_torch(destroy)


@contextmanager
def _own_device() -> Iterator[None]:
    """Make the GPU of a rank, if it has one, torch's current device."""
    from ray.train.torch.config import TorchConfigContextManager  # late: imports torch

    with TorchConfigContextManager():
        yield
