"""The receiver of weights from shared memory; runs in the engine's process.

On another host than the learner's, the memory holds the copy of `actors.engine.streamed_weights`.

vLLM provides the receivers `nccl` and `ipc`. This module adds `shm` for engines on a CPU: the learner writes all
weights into an anonymous shared-memory file, and the engine maps the file and loads the weights, if the model allows
beside the old ones while it generates (`actors.engine.staged_model`), else in its pause. When `finish_weight_update`
returns, every weight is installed, including the packed copies with which a CPU engine computes.

If the learner trains an adapter, it sends the frozen base once. The base stays mapped, and all engines of a machine
share its pages. The receiver merges each adapter into that base, never into weights with an earlier adapter, so
rounding errors do not accumulate.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.platforms import current_platform

from actors.engine.staged_model import StagedModel, can_stage


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """The location and meaning of weights in shared memory.

    path: the file, readable by this process.
    size: size of the file in bytes.
    names, dtype_names, shapes, offsets: one entry per tensor; offsets in bytes.
    keep: the tensors are the base of later adapters. The first adapter, in the same update, loads the base.
    scale: if not None, the tensors are an adapter: each weight NAME with `NAME.lora_A` and `NAME.lora_B` becomes
        base + scale B A.
    transposed: names of the weights that are stored as [in, out].
    """

    path: str
    size: int
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    offsets: list[int]
    keep: bool = False
    scale: float | None = None
    transposed: list[str] = field(default_factory=list)


class SharedMemoryReceiver(WeightTransferEngine[WeightTransferInitInfo, SharedMemoryUpdateInfo]):
    """Loads weights from shared memory of the same machine."""

    init_info_cls = WeightTransferInitInfo
    update_info_cls = SharedMemoryUpdateInfo
    _base: dict[str, torch.Tensor]
    _base_loaded = False
    _heads_loaded = False
    _staged: StagedModel | None = None

    def init_transfer_engine(self, init_info: WeightTransferInitInfo) -> None:
        self._base = {}

    def stage_weights(self, updates: list[dict[str, Any]]) -> bool:
        """Begin to load the updates that follow, in a thread, and return True; False for a model that cannot."""
        if self._staged is None:
            if not can_stage(self.model):
                return False
            self._staged = StagedModel(self.model, self.vllm_config)
        infos = [self.parse_update_info(update) for update in updates]

        def load(take: Callable[[Iterable[tuple[str, torch.Tensor]]], None]) -> None:
            for info in infos:
                tensors = self._due(info)
                if tensors is not None:
                    take(tensors)

        self._staged.begin(load)
        return True

    def weights_staged(self) -> bool:
        """Return whether the updates that `stage_weights` began are loaded. Raises the error of their loading."""
        assert self._staged is not None
        return self._staged.done()

    @property
    def _is_staged(self) -> bool:
        return self._staged is not None and self._staged.ready

    def start_weight_update(self) -> None:
        if self._is_staged:
            return
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)
        self._heads_loaded = False

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

        if self._is_staged:
            return
        tensors = self._due(update_info)
        if tensors is not None:
            with disable_mtp_completeness_check():
                self.model.load_weights(tensors)

    def _due(self, update_info: SharedMemoryUpdateInfo) -> Iterable[tuple[str, torch.Tensor]] | None:
        """Map the memory of an update and return the weights to load; None if it has the base of adapters."""
        try:
            file = open(update_info.path, "rb")  # noqa: SIM115 - the mapping outlives this function
        except OSError as error:
            raise RuntimeError(
                f"the engine cannot open the learner's shared memory {update_info.path} ({error.strerror}): `shm` "
                "needs learner rank 0 and every engine on one machine and under one user; otherwise set "
                "learner.broadcast.backend=stream"
            ) from error
        with file:
            # A private mapping, because torch requires writable memory.
            memory = mmap.mmap(file.fileno(), update_info.size, access=mmap.ACCESS_COPY)
        tensors = _tensors(memory, update_info)
        if update_info.keep:
            self._base, self._base_loaded = dict(tensors), False
            return None
        if update_info.scale is not None:
            return self._merged(dict(tensors), update_info)
        self._heads_loaded = True
        return tensors

    def _merged(
        self, adapter: dict[str, torch.Tensor], info: SharedMemoryUpdateInfo
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield base + adapter: at first all weights, later those of every module that the adapter changes.

        Modules are yielded whole because the engine fuses some of their weights (q, k and v; gate and up).
        """
        if not self._base:
            raise RuntimeError("the engine received an adapter before the adapter's base")
        assert info.scale is not None
        changed = {name.removesuffix(".lora_A") for name in adapter if name.endswith(".lora_A")}
        modules = {_module(name) for name in changed}
        self._heads_loaded = not self._base_loaded
        for name, weight in self._base.items():
            if name in changed:
                a, b = (adapter[f"{name}.{part}"].to(self.device).float() for part in ("lora_A", "lora_B"))
                delta = a.T @ b.T if name in info.transposed else b @ a
                yield name, torch.add(weight.to(self.device).float(), delta, alpha=info.scale).to(weight.dtype)
            elif not self._base_loaded or _module(name) in modules:
                yield name, weight
        self._base_loaded = True

    def finish_weight_update(self) -> None:
        if self._is_staged:
            assert self._staged is not None
            self._staged.install()
            return
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        if self._heads_loaded:
            repack_heads(self.model)

    def shutdown(self) -> None:
        pass


def _tensors(memory: mmap.mmap, info: SharedMemoryUpdateInfo) -> Iterator[tuple[str, torch.Tensor]]:
    for name, dtype_name, shape, offset in zip(info.names, info.dtype_names, info.shapes, info.offsets, strict=True):
        size = torch.Size(shape)
        flat = torch.frombuffer(memory, dtype=getattr(torch, dtype_name), count=size.numel(), offset=offset)
        yield name, flat.view(size)


def _module(name: str) -> str:
    """Return the module of a weight: `model.layers.0.mlp` for `model.layers.0.mlp.up_proj.weight`."""
    return name.rsplit(".", 2)[0]


def repack_heads(model: torch.nn.Module) -> None:
    """Rebuild a CPU engine's packed copies of embeddings and output heads from their current weights.

    A CPU engine multiplies by a packed copy of each weight. Reloading rebuilds the copies layer by layer. An output
    head that shares its weight with the embedding receives no weight of its own, so reloading leaves its copy stale.
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
