"""Receiving side of weights, run in the engine's process.

`nccl` and `ipc` are vLLM's own receivers. `shm` is ours, for engines on a CPU: the learner writes all weights into
one anonymous shared-memory file, and the engine maps it and loads from it. When `finish_weight_update` returns, every
weight is in place, the packed copies that a CPU engine computes with included.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.platforms import current_platform

BACKEND = "shm"


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing has to be agreed beforehand."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """Where the weights lie.

    path: file that holds them, readable by this process.
    size: bytes of the file.
    names, dtype_names, shapes, offsets: one entry per weight; offsets in bytes.
    """

    path: str
    size: int
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    offsets: list[int]


class SharedMemoryReceiver(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads weights that lie in shared memory of the same machine."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        pass

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

        try:
            file = open(update_info.path, "rb")  # noqa: SIM115 - the mapping outlives this function
        except OSError as error:
            raise RuntimeError(
                f"the learner's shared memory {update_info.path} can't be opened here ({error.strerror}): `shm` needs "
                "learner rank 0 and every engine on one machine and under one user; use nccl across machines"
            ) from error
        with file:
            # Private: torch wants memory that could be written to.
            memory = mmap.mmap(file.fileno(), update_info.size, access=mmap.ACCESS_COPY)
        with disable_mtp_completeness_check():
            self.model.load_weights(_tensors(memory, update_info))

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        repack_heads(self.model)

    def shutdown(self) -> None:
        pass


def _tensors(memory: mmap.mmap, info: SharedMemoryUpdateInfo) -> Iterator[tuple[str, torch.Tensor]]:
    for name, dtype_name, shape, offset in zip(info.names, info.dtype_names, info.shapes, info.offsets, strict=True):
        size = torch.Size(shape)
        flat = torch.frombuffer(memory, dtype=getattr(torch, dtype_name), count=size.numel(), offset=offset)
        yield name, flat.view(size)


def repack_heads(model: torch.nn.Module) -> None:
    """Pack the embeddings and output heads of a CPU engine anew from their current weights.

    A CPU engine multiplies by a packed copy of each weight. Reloading makes new copies layer by layer, but a head
    that shares its weight with the embedding receives no weight of its own, so its copy would stay the old one.
    """
    if not current_platform.is_cpu():
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and isinstance(module.quant_method, UnquantizedEmbeddingMethod):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def register_receivers() -> None:
    """Make `shm` known to vLLM in this process. Safe to call again."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryReceiver)
