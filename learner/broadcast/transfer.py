"""What is sent to engines: the policy's weights, or an adapter, gathered from the ranks; and how through shared memory.

`nccl` and `ipc` are vLLM's own senders and take a `PolicySource` as it is.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch

# Importing vLLM says several things about accelerators that the learner does not ask it about.
logging.getLogger("vllm").setLevel(logging.ERROR)

from vllm.distributed.weight_transfer.base import (  # noqa: E402
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    layerwise_groups,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory  # noqa: E402

from learner.engine.accelerator import deepspeed  # noqa: E402
from learner.models.adapters import PARTS, Weight, weights  # noqa: E402

# Each weight begins on a cache line.
ALIGNMENT = 64


class PolicySource(WeightSource):
    """The weights of a Hugging Face module as vLLM loads them: checkpoint names, each shared weight once.

    Under ZeRO-3 each layer is gathered on its own, so that no rank ever holds more than a layer beside its share; the
    others yield what they hold.

    Args:
        module: the model itself, or inside a DeepSpeed engine; with the same names as in a checkpoint.
        wire_dtype: dtype to send in; None sends each weight in its own. Adapters go in their own.
        part: of a model with an adapter: the two "merged", the frozen "base" alone, or the "adapter", whose tensors are
            called `NAME.lora_A` and `NAME.lora_B` for each weight NAME that it changes.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        wire_dtype: torch.dtype | None = None,
        part: Literal["merged", "base", "adapter"] = "merged",
    ) -> None:
        self._module = module
        self._weights = {w.name: w for w in weights(module) if w.adapter or part != "adapter"}
        self._wire_dtype = wire_dtype
        self._part = part
        self._groups = layerwise_groups(list(self._weights))
        self._pass: Iterator[tuple[str, torch.Tensor]] | None = None

    @property
    def adapted(self) -> list[Weight]:
        """The weights that an adapter changes."""
        return [weight for weight in self._weights.values() if weight.adapter]

    def only(self, part: Literal["base", "adapter"]) -> PolicySource:
        """That part of the same weights."""
        return PolicySource(self._module, self._wire_dtype, part)

    def metadata(self) -> list[ParamMeta]:
        found = []
        for weight in (self._weights[name] for group in self._groups for name in group):
            if self._part == "adapter":
                found += [
                    ParamMeta(f"{weight.name}.{part}", parameter.dtype, _shape(parameter))
                    for part, parameter in zip(PARTS, weight.adapter, strict=True)
                ]
            else:
                parameter = weight.parameter
                found.append(ParamMeta(weight.name, self._wire_dtype or parameter.dtype, _shape(parameter)))
        return found

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._pass = self._gather()
        return self._pass

    def drain(self) -> None:
        """Finish a pass that was broken off, so that the other ranks' gathers find their partner."""
        for _ in self._pass or ():
            pass

    def _gather(self) -> Iterator[tuple[str, torch.Tensor]]:
        for group in self._groups:
            members = [self._weights[name] for name in group]
            with _gathered([parameter for weight in members for parameter in self._read(weight)]):
                for weight in members:
                    yield from self._tensors(weight)

    def _read(self, weight: Weight) -> list[torch.nn.Parameter]:
        """What must be gathered of it."""
        return {"merged": weight.parts, "base": [weight.parameter], "adapter": weight.adapter}[self._part]

    def _tensors(self, weight: Weight) -> Iterator[tuple[str, torch.Tensor]]:
        if self._part == "adapter":
            for part, parameter in zip(PARTS, weight.adapter, strict=True):
                yield f"{weight.name}.{part}", parameter.detach()
            return
        tensor = weight.merged() if self._part == "merged" else weight.parameter.detach()
        yield weight.name, tensor if self._wire_dtype is None else tensor.to(self._wire_dtype)


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _gathered(parameters: list[torch.nn.Parameter]) -> AbstractContextManager[Any]:
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        return nullcontext()
    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(partitioned)
    return context


# Shared memory: learner rank 0 and all engines on one machine.


@dataclass
class SharedMemoryTrainerInitInfo(TrainerInitInfo):
    """Nothing has to be agreed beforehand."""

    backend: ClassVar[str] = "shm"


class SharedMemory:
    """Tensors in one anonymous file, which engines open through this process's /proc entry.

    A memfd needs no room in /dev/shm, which containers keep small, and the kernel frees it when the learner ends,
    however it ends.
    """

    def __init__(self, metadata: list[ParamMeta]) -> None:
        offsets, size = [], 0
        for meta in metadata:
            offsets.append(size)
            size += -(-torch.Size(meta.shape).numel() * meta.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        self._file = os.memfd_create("archer-weights")
        os.ftruncate(self._file, size)
        memory = mmap.mmap(self._file, size)
        self._views = [
            (
                meta.name,
                torch.frombuffer(memory, dtype=meta.dtype, count=torch.Size(meta.shape).numel(), offset=offset).view(
                    meta.shape
                ),
            )
            for meta, offset in zip(metadata, offsets, strict=True)
        ]
        self.info: dict[str, Any] = {
            "path": f"/proc/{os.getpid()}/fd/{self._file}",
            "size": size,
            "names": [meta.name for meta in metadata],
            "dtype_names": [str(meta.dtype).removeprefix("torch.") for meta in metadata],
            "shapes": [list(meta.shape) for meta in metadata],
            "offsets": offsets,
        }

    def write(self, source: WeightSource) -> None:
        for (name, tensor), (expected, view) in zip(source, self._views, strict=True):
            if name != expected:
                raise RuntimeError(f"the weight source gave {name!r} where its metadata said {expected!r}")
            view.copy_(tensor)

    def close(self) -> None:
        self._views = []
        os.close(self._file)


@dataclass
class _Shipment:
    """What is sent together. `about`: what the receiver must know of it; `once`: it stays, and is not sent again."""

    source: WeightSource
    about: dict[str, Any] = field(default_factory=dict)
    once: bool = False
    memory: SharedMemory | None = None
    sent: bool = False


class SharedMemoryTrainer(TrainerWeightTransferEngine[SharedMemoryTrainerInitInfo]):
    """Writes weights into shared memory, from which `actors.engine.weight_receiver` loads them.

    Of a policy with an adapter the base is written once, when these engines first get weights, and stays for them to
    merge each adapter into; after that only adapters are sent.
    """

    init_info_cls = SharedMemoryTrainerInitInfo
    _shipments: list[_Shipment]

    @classmethod
    def trainer_init(
        cls,
        init_info: SharedMemoryTrainerInitInfo,
        *,
        client: VLLMWeightSyncClient,
        source: WeightSource | None = None,
    ) -> Self:
        if source is None:
            raise ValueError("the shm weight transfer needs a WeightSource")
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        engine._shipments = [_Shipment(source)]
        adapted = source.adapted if isinstance(source, PolicySource) else []
        if isinstance(source, PolicySource) and adapted:
            about = {"scale": adapted[0].scale, "transposed": [weight.name for weight in adapted if weight.transposed]}
            engine._shipments = [
                _Shipment(source.only("base"), {"keep": True}, once=True),
                _Shipment(source.only("adapter"), about),
            ]
        if engine.is_sender:
            client.init_weight_transfer_engine({})
        return engine

    def send_weights(self) -> None:
        # Written before the engines pause: they go on working meanwhile.
        due = [shipment for shipment in self._shipments if not (shipment.once and shipment.sent)]
        for shipment in due:
            if not self.is_sender:
                for _ in shipment.source:
                    pass
            else:
                shipment.memory = shipment.memory or SharedMemory(shipment.source.metadata())
                shipment.memory.write(shipment.source)
            shipment.sent = True
        if not self.is_sender:
            return
        self.client.start_weight_update()
        for shipment in due:
            assert shipment.memory is not None
            self.client.update_weights(shipment.memory.info | shipment.about)
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        for shipment in self._shipments:
            if shipment.memory is not None:
                shipment.memory.close()
                shipment.memory = None


if "shm" not in WeightTransferTrainerFactory._registry:
    WeightTransferTrainerFactory.register_engine("shm", SharedMemoryTrainer)
