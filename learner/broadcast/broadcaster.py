"""The broadcast: send the policy's weights to the engines, and prove that the engines compute with them.

The engines go on with their requests as soon as they have the weights, and answer the proof beside them: `send` returns
before the proof has ended, and `settle` takes its outcome.

Every rank calls the same methods in the same order. Only rank 0 talks to the engines, through the client that the
rollout service returns; the other ranks take part in gathering, which is collective under ZeRO-3.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import ray.util
import torch
import torch.distributed as dist
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

from buffer.config import FlightTls
from learner.broadcast.pending import PendingProof
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.proof import compare
from learner.broadcast.shared_memory import HostsClient, SharedMemorySender
from learner.broadcast.weight_stream import WeightStream
from learner.config import Backend
from learner.errors import WaitTimeoutError
from learner.protocols import RolloutService

T = TypeVar("T")

# Engines that are lost in this many broadcasts in a row have a fault that another attempt does not remove.
ATTEMPTS = 4


class SyncClient(HostsClient, Protocol):
    """vLLM's client to the engines, with what the rollout service's client adds to it."""

    version: int
    timeout_s: float
    died_error: type[Exception]
    """Raised by every call when no engine is left."""

    @property
    def names(self) -> list[str]: ...

    @property
    def ranks(self) -> int: ...


@dataclass
class Broadcaster:
    """Sends the policy's weights as a new version, and proves it.

    Attributes:
        rollouts: returns the client to the engines, and probes them; used on rank 0 only.
        timeout_s: the limit of each step of a broadcast.
        logprobs_fn: returns the learner's log p(tokens[i + 1] | tokens[: i + 1]) at the sampling temperature, float32
            [length - 1], for int32 [length]; called on every rank.
        probe_tokens: int32 [length], the sequence on which the proof compares log-probabilities.
        positions: int32 [positions], the tokens of it that the engines are asked for (`proof.probe_positions`).
        tolerance: the largest gap in log-probability that the proof accepts.
        tls: TLS of the stream to engines on other hosts; None for none.
        parts, attempts: of the last broadcast, the seconds of its parts on this rank and the number of its attempts.
            The part "prove" is the time in which the engines answered, and "wait" the part of it that `settle` waited.
    """

    source: PolicySource
    rollouts: RolloutService
    backend: Backend
    rank: int
    timeout_s: float
    logprobs_fn: Callable[[np.ndarray], np.ndarray]
    probe_tokens: np.ndarray
    positions: np.ndarray
    tolerance: float
    tls: FlightTls | None = None
    parts: dict[str, float] = field(default_factory=dict)
    attempts: int = 0
    _previous: np.ndarray | None = None
    _expected: np.ndarray | None = None
    _transfer: TrainerWeightTransferEngine | SharedMemorySender | None = None
    _engines: tuple[str, ...] = ()
    _stream: WeightStream = field(init=False)
    _pending: PendingProof | None = None

    def __post_init__(self) -> None:
        self._stream = WeightStream(self.tls)

    def broadcast(self, version: int) -> float:
        """Send the current weights as policy `version`, wait for the proof, and return its largest gap.

        Called on every rank. Raises as `send` and `settle` do.
        """
        self.send(version)
        gap = self.settle()
        assert gap is not None
        return gap

    def send(self, version: int) -> None:
        """Send the current weights to all running engines as policy `version`, and begin the proof.

        Called on every rank, and `settle` before the next call. The weights must stay as they are until then.

        An engine that dies during the broadcast, or that the stream does not reach, is skipped and stays stale. If none
        is left, the broadcast waits for an engine and tries again.

        Raises:
            WaitTimeoutError: a step timed out, or all engines were lost in every attempt.
            LearnerError: an engine is on another host, and `backend` is shm.
        """
        assert self._pending is None, "take the outcome of the last proof by `settle` first"
        self.parts, self.attempts, self._expected = {}, 0, None
        self._send_until_taken(version, "")

    def settle(self) -> float | None:
        """Wait for the proof that `send` began and return the largest gap, or None if no proof has begun.

        Called on every rank. If no engine is left to be proved, the weights are sent again.

        Raises:
            BroadcastProofError: an engine does not compute with these weights.
            WaitTimeoutError: as `send` does.
        """
        while self._pending is not None:
            pending, self._pending = self._pending, None
            with self._part("wait"):
                outcome = self._share(pending.outcome())
            self.parts["prove"] = self.parts.get("prove", 0.0) + pending.seconds
            if isinstance(outcome, float):
                self._previous = pending.expected
                return outcome
            self._send_until_taken(pending.version, outcome)
        return None

    def prove(self, version: int) -> float:
        """Prove that the engines compute with the learner's weights, which both have loaded as `version`.

        Called on every rank. Returns the largest gap in log-probability. Raises as `settle` does.
        """
        expected = self.logprobs_fn(self.probe_tokens)[self.positions - 1]
        outcome = self._share(self._compare(version, expected, sent=False) if self.rank == 0 else 0.0)
        if isinstance(outcome, str):
            raise WaitTimeoutError(f"no engine is left to prove: {outcome}. See the workers' logs")
        self._previous = expected
        return outcome

    def _expect(self) -> None:
        """Compute the learner's side of the proof, once for each version: before the engines pause."""
        if self._expected is None:
            with self._part("expect"):
                self._expected = self.logprobs_fn(self.probe_tokens)[self.positions - 1]

    def _send_until_taken(self, version: int, reason: str) -> None:
        """Send the weights until an engine takes them, and begin the proof. `reason`: why an earlier send failed."""
        while self.attempts < ATTEMPTS:
            self.attempts += 1
            with self._part("connect"):
                client = self._prepare(version)
            expecting = self.parts.get("expect", 0.0)
            with self._part("transfer"):
                lost = self._share(self._send(client))
            self.parts["transfer"] -= self.parts.get("expect", 0.0) - expecting  # they overlap, and each counts once
            if lost is None:
                expected = self._expected
                assert expected is not None
                compare = None if client is None else partial(self._compare, version, expected)
                self._pending = PendingProof(version, expected, compare)
                return
            reason = lost
        raise WaitTimeoutError(
            f"no engine took the broadcast of policy version {version}, {ATTEMPTS} times in a row; the last time: "
            f"{reason}. See the workers' logs in the Ray session folder"
        )

    def close(self) -> None:
        """Free the connections and memory that stay open between broadcasts."""
        self._disconnect()
        self._stream.close()

    def _disconnect(self) -> None:
        if self._transfer is not None:
            self._transfer.shutdown()
            self._transfer = None

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a part of the broadcast."""
        started = time.monotonic()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.monotonic() - started

    def _prepare(self, version: int) -> SyncClient | None:
        """Close the transfer if the engines have changed, which have a new incarnation after each restart, or if the
        last broadcast did not reach all of them.

        Returns the client on rank 0, None on other ranks.
        """
        client: SyncClient | None = None
        changed = False
        if self.rank == 0:
            client = self.rollouts.sync_client()
            client.version = version
            client.timeout_s = self.timeout_s
            engines = tuple(client.incarnations)
            changed = self._transfer is None or engines != self._engines
            self._engines = engines
        if self._share(changed):
            self._disconnect()
        if self._transfer is not None:
            self._transfer.client = client
        return client

    def _send(self, client: SyncClient | None) -> str | None:
        """Send the weights. Returns the reason if no engine is left, else None."""
        died = () if client is None else client.died_error
        try:
            self._transmit(client)
        except died as error:
            self.source.drain()
            self._expect()  # as the other ranks do, which may gather weights for it
            if isinstance(self._transfer, SharedMemorySender):
                self._transfer.shutdown()  # another kind would wait for the engines that died
            self._transfer = None
            return str(error)
        if client is not None and tuple(client.incarnations) != self._engines:
            self._engines = ()
        return None

    def _transmit(self, client: SyncClient | None) -> None:
        def send() -> None:
            with torch.no_grad():
                if self._transfer is None:
                    self._transfer = self._new_transfer(client)
                if isinstance(self._transfer, SharedMemorySender):
                    self._transfer.meanwhile = self._expect
                self._transfer.send_weights()

        if self.backend not in ("nccl", "ipc"):
            # Each call of the client has its own timeout.
            send()
            return
        self._expect()  # these engines pause before the transfer
        # If a peer dies inside an NCCL call, this side blocks in it, so the call runs in a thread with a time limit.
        device = torch.cuda.current_device()
        thread = ThreadPoolExecutor(
            1, thread_name_prefix="broadcast", initializer=torch.cuda.set_device, initargs=(device,)
        )
        future = thread.submit(send)
        thread.shutdown(wait=False)
        try:
            future.result(self.timeout_s)
        except FutureTimeoutError:
            names = ", ".join(client.names) if client is not None else "rank 0"
            raise WaitTimeoutError(
                f"the weights did not reach {names} over {self.backend} within {self.timeout_s:g} s; at least one of "
                "them has died or is unreachable. Resume from the last checkpoint, or raise learner.broadcast.timeout_s"
            ) from None

    def _new_transfer(self, client: SyncClient | None) -> TrainerWeightTransferEngine | SharedMemorySender:
        """Connect to the engines of `client`, over the backend."""
        info: TrainerInitInfo
        if self.backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            info = IPCTrainerInitInfo(rank=self.rank, packed=True)
        elif self.backend == "nccl":
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

            address, port = ("", 0) if client is None else _free_address()
            ranks = 0 if client is None else client.ranks
            info = NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=1 + ranks, rank=self.rank)
        else:
            return SharedMemorySender(client, self.source, self._stream, way=self.backend)
        return WeightTransferTrainerFactory.trainer_init(info, client=client, source=self.source)

    def _compare(self, version: int, expected: np.ndarray, *, sent: bool = True) -> float | str:
        """Return the largest gap, or the reason if no engine is left to probe. Called on rank 0."""
        try:
            answers = self.rollouts.probe(self.probe_tokens, self.positions)
        except self.rollouts.stale_error as error:
            return str(error)
        return compare(
            expected,
            answers,
            positions=self.positions,
            version=version,
            tolerance=self.tolerance,
            previous=self._previous,
            sent=sent,
        )

    def _share(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _free_address() -> tuple[str, int]:
    """Return this machine's address in the cluster, and a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(probe.getsockname()[1])
