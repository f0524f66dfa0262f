"""Weights through shared memory, from learner rank 0 to the engines of the same machine."""

from __future__ import annotations

import mmap
import os
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, VLLMWeightSyncClient, WeightSource

from learner.broadcast.policy_source import PolicySource

# Each tensor begins on a cache line.
ALIGNMENT = 64


class SharedMemory:
    """Tensors in one anonymous file (memfd), which engines open through this process's entry in /proc.

    A memfd needs no space in /dev/shm, which is small in containers, and the kernel frees it when the process ends.
    """

    def __init__(self, metadata: list[ParamMeta]) -> None:
        offsets, size = [], 0
        for meta in metadata:
            offsets.append(size)
            size += -(-torch.Size(meta.shape).numel() * meta.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self._file = os.fdopen(os.memfd_create("archer-weights"), "wb")
        self._file.truncate(size)
        memory = mmap.mmap(self._file.fileno(), size)
        self._views = {}
        for meta, offset in zip(metadata, offsets, strict=True):
            count = torch.Size(meta.shape).numel()
            view = torch.frombuffer(memory, dtype=meta.dtype, count=count, offset=offset)
            self._views[meta.name] = view.view(meta.shape)
        self.info: dict[str, Any] = {
            "path": f"/proc/{os.getpid()}/fd/{self._file.fileno()}",
            "size": size,
            "names": [meta.name for meta in metadata],
            "dtype_names": [str(meta.dtype).removeprefix("torch.") for meta in metadata],
            "shapes": [list(meta.shape) for meta in metadata],
            "offsets": offsets,
        }

    def write(self, source: WeightSource) -> None:
        """Copy one pass of `source` into the file."""
        for name, tensor in source:
            self._views[name].copy_(tensor)

    def close(self) -> None:
        """Free the memory as soon as no engine maps it."""
        self._views = {}
        self._file.close()


class SharedMemorySender:
    """Writes weights into shared memory, from which `actors.engine.weight_receiver` loads them.

    It has the interface of vLLM's `TrainerWeightTransferEngine`. Without an adapter each send carries all weights. With
    one, the first send carries the base, which the engines keep, and every send carries the adapter, which they merge.

    Args:
        client: makes the engines receive; used on the sender only.
        is_sender: true on rank 0. The other ranks take part in gathering.
    """

    def __init__(self, client: VLLMWeightSyncClient, source: PolicySource, *, is_sender: bool) -> None:
        self.client = client
        self._is_sender = is_sender
        parts: list[tuple[PolicySource, dict[str, Any]]] = [(source, {})]
        if adapted := source.adapted:
            about = {"scale": adapted[0].scale, "transposed": [weight.name for weight in adapted if weight.transposed]}
            parts = [(source.only("base"), {"keep": True}), (source.only("adapter"), about)]
        self._parts = [(part, about, SharedMemory(part.metadata()) if is_sender else None) for part, about in parts]
        self._base_sent = False
        if is_sender:
            client.init_weight_transfer_engine({})

    def send_weights(self) -> None:
        """Write the weights that are due and let the engines load them. Called on every rank."""
        due = self._parts[-1:] if self._base_sent else self._parts
        # Engines continue to generate while the weights are written; they pause only to load them.
        for source, _, memory in due:
            if memory is not None:
                memory.write(source)
            else:
                for _ in source:
                    pass
        self._base_sent = True
        if not self._is_sender:
            return
        self.client.start_weight_update()
        for _, about, memory in due:
            assert memory is not None
            self.client.update_weights(memory.info | about)
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        """Free the shared memory."""
        for _, _, memory in self._parts:
            if memory is not None:
                memory.close()
