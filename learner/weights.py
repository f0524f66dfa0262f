"""Sending side of weights: gather them from the learner's ranks, hand them to the engines, prove that they arrived.

Every rank calls the same methods in the same order. Rank 0 alone talks to the engines, through the client that the
rollout service gives; the other ranks take part in gathering, which under ZeRO-3 is collective.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist

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

from learner.accelerator import deepspeed  # noqa: E402
from learner.errors import WaitTimeoutError  # noqa: E402
from learner.lora import PARTS, Weight, weights  # noqa: E402
from learner.proof import compare  # noqa: E402
from learner.protocols import RolloutService  # noqa: E402

Backend = Literal["shm", "nccl", "ipc"]
T = TypeVar("T")

# Engines that die in broadcast after broadcast need a person.
ATTEMPTS = 4
# Each weight begins on a cache line.
ALIGNMENT = 64


class SyncClient(VLLMWeightSyncClient, Protocol):
    """What the rollout service's `sync_client()` offers beyond vLLM's protocol."""

    version: int
    timeout_s: float
    died_error: type[Exception]
    """Raised by every call when no engine is left."""

    @property
    def names(self) -> list[str]: ...

    @property
    def incarnations(self) -> list[str]: ...

    @property
    def ranks(self) -> int: ...


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
    """Writes weights into shared memory, from which `actors.weights` loads them.

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


# Broadcast


@dataclass(frozen=True)
class BroadcastReport:
    """seconds: all of it, the proof included; max_gap: of the proof; engines: those that hold the weights now."""

    seconds: float
    max_gap: float
    engines: list[str]


class Broadcaster:
    """Hands out the policy's weights as a new version, and proves it.

    Args:
        source: the weights.
        rollouts: gives the client to the engines and probes them; used on rank 0 only.
        backend: how weights travel.
        rank: this learner rank.
        timeout_s: each step of a broadcast may take this long.
        logprobs_fn: the learner's log p(tokens[i + 1] | tokens[: i + 1]) at the sampling temperature; int32 [length]
            to float32 [length - 1]; called on every rank.
        probe_tokens: int32 [length], the sequence that the proof compares.
        tolerance: largest gap in log-probability that the proof accepts.
    """

    def __init__(
        self,
        source: PolicySource,
        rollouts: RolloutService,
        backend: Backend,
        rank: int,
        timeout_s: float,
        logprobs_fn: Callable[[np.ndarray], np.ndarray],
        probe_tokens: np.ndarray,
        tolerance: float,
    ) -> None:
        self._source = source
        self._rollouts = rollouts
        self._backend = backend
        self._rank = rank
        self._timeout_s = timeout_s
        self._logprobs_fn = logprobs_fn
        self._probe_tokens = probe_tokens
        self._tolerance = tolerance
        self._previous: np.ndarray | None = None
        self._transfer: TrainerWeightTransferEngine | None = None
        self._engines: list[str] = []

    def broadcast(self, version: int) -> BroadcastReport:
        """Give all engines that are up the current weights as policy `version`. Called on every rank.

        An engine that dies on the way is left behind, stale; where none is left, restarted ones are waited for.
        Raises BroadcastProofError, WaitTimeoutError, and what the rollout service raises, all with the engines'
        names.
        """
        started = time.monotonic()
        expected = self._logprobs_fn(self._probe_tokens)
        reason = ""
        for _ in range(ATTEMPTS):
            client = self._prepare(version)
            died = self._share(self._send(client))
            if died is None:
                outcome = self._share(self._prove(client, version, expected))
                if isinstance(outcome, float):
                    self._previous = expected
                    names = self._share(client.names if client is not None else [])
                    return BroadcastReport(time.monotonic() - started, outcome, names)
                died = outcome
            reason = died
        raise WaitTimeoutError(
            f"all engines died during the broadcast of policy version {version}, {ATTEMPTS} times in a row; the last "
            f"time: {reason}. See the workers' logs in the Ray session folder"
        )

    def close(self) -> None:
        """Give back what stays between broadcasts; for when another source takes over."""
        if self._transfer is not None:
            self._transfer.shutdown()
            self._transfer = None

    def _prepare(self, version: int) -> SyncClient | None:
        """The client (rank 0 only), and on all ranks a transfer that reaches just its engines."""
        client: SyncClient | None = None
        anew = False
        if self._rank == 0:
            client = self._rollouts.sync_client()
            client.version = version
            client.timeout_s = self._timeout_s
            anew = self._transfer is None or client.incarnations != self._engines
            self._engines = client.incarnations
        if self._share(anew):
            self.close()
        if self._transfer is not None:
            self._transfer.client = client
        return client

    def _send(self, client: SyncClient | None) -> str | None:
        """Send the weights. Returns why no engine is left, or None."""
        if client is None:
            self._transmit(client)
            return None
        try:
            self._transmit(client)
        except client.died_error as error:
            self._source.drain()
            self._transfer = None
            return str(error)
        if client.incarnations != self._engines:
            # Some engines died; the next broadcast makes a transfer for those that are up then.
            self._engines = []
        return None

    def _transmit(self, client: SyncClient | None) -> None:
        def send() -> None:
            with torch.no_grad():
                if self._transfer is None:
                    self._transfer = WeightTransferTrainerFactory.trainer_init(
                        self._init_info(client),
                        client=client,
                        source=self._source,
                    )
                self._transfer.send_weights()

        if self._backend == "shm":
            # Each of its steps has a timeout of its own.
            send()
            return
        # A peer that dies inside an NCCL call leaves this side hanging in it.
        device = torch.cuda.current_device()
        thread = ThreadPoolExecutor(
            1, thread_name_prefix="broadcast", initializer=torch.cuda.set_device, initargs=(device,)
        )
        future = thread.submit(send)
        thread.shutdown(wait=False)
        try:
            future.result(self._timeout_s)
        except FutureTimeoutError:
            names = ", ".join(client.names) if client is not None else "rank 0"
            raise WaitTimeoutError(
                f"the weights did not reach {names} over {self._backend} within {self._timeout_s:g} s; one of them is "
                "gone or can't be reached. Resume from the last checkpoint, or raise learner.broadcast.timeout_s"
            ) from None

    def _init_info(self, client: SyncClient | None) -> TrainerInitInfo:
        if self._backend == "shm":
            return SharedMemoryTrainerInitInfo(rank=self._rank)
        if self._backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=self._rank, packed=True)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        address, port = ("", 0) if client is None else _free_address()
        ranks = 0 if client is None else client.ranks
        return NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=1 + ranks, rank=self._rank)

    def _prove(self, client: SyncClient | None, version: int, expected: np.ndarray) -> float | str:
        """The largest gap, or why no engine is left to prove it on."""
        if client is None:
            return 0.0
        try:
            answers = self._rollouts.probe(self._probe_tokens)
        except self._rollouts.stale_error as error:
            return str(error)
        return compare(expected, answers, version=version, tolerance=self._tolerance, previous=self._previous)

    def _share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _free_address() -> tuple[str, int]:
    """This machine's address in the cluster, and a port that is free now."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(probe.getsockname()[1])
