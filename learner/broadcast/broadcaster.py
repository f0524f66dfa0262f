"""The broadcast: hand the policy's weights to the engines, and prove that they arrived.

Every rank calls the same methods in the same order. Rank 0 alone talks to the engines, through the client that the
rollout service gives; the other ranks take part in gathering, which under ZeRO-3 is collective.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from learner.broadcast.proof import compare
from learner.broadcast.transfer import (
    PolicySource,
    SharedMemoryTrainerInitInfo,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightTransferTrainerFactory,
)
from learner.errors import WaitTimeoutError
from learner.protocols import RolloutService

Backend = Literal["shm", "nccl", "ipc"]
T = TypeVar("T")

# Engines that die in broadcast after broadcast need a person.
ATTEMPTS = 4


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
