"""The module that vLLM imports in each engine process (`worker_extension_cls`) before it loads the model.

The import registers the shared-memory receiver of weights, and makes the process end when the worker that started the
engine ends, for whatever reason. vLLM offers no other hook that early.

A worker killed by SIGKILL cannot end its children. The worker therefore writes its process id into the environment that
they inherit, and each child watches that process through a pidfd. A pidfd needs no polling, and it never refers to
another process that reuses the id.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from pathlib import Path
from typing import Any

from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.engine.launch import OWNER_VARIABLE
from actors.engine.weight_receiver import SharedMemoryReceiver


class EngineExtension:
    """Mixed into vLLM's worker class, through which the engine calls the receiver of weights while it generates."""

    weight_transfer_engine: SharedMemoryReceiver

    def stage_weights(self, updates: list[dict[str, Any]]) -> bool:
        """Call `SharedMemoryReceiver.stage_weights`."""
        return self.weight_transfer_engine.stage_weights(updates)

    def weights_staged(self) -> bool:
        """Call `SharedMemoryReceiver.weights_staged`."""
        return self.weight_transfer_engine.weights_staged()


def follow_owner() -> None:
    """When the owner ends, kill this process and the engine core between it and the owner."""
    owner = int(os.environ.get(OWNER_VARIABLE, os.getpid()))
    if owner == os.getpid():
        return
    try:
        handle = os.pidfd_open(owner)
    except ProcessLookupError:
        _end(owner)
        return
    poller = select.poll()
    poller.register(handle, select.POLLIN)

    def guard() -> None:
        poller.poll()
        _end(owner)

    threading.Thread(target=guard, name="process-guard", daemon=True).start()


def _end(owner: int) -> None:
    # If an engine has several processes, the parent of this one is the engine core, a child of the owner.
    parent = os.getppid()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if parent not in (owner, 1) and Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"VLLM::"):
            os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


WeightTransferEngineFactory.register_engine("shm", SharedMemoryReceiver)
follow_owner()
