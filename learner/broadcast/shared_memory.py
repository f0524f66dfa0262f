"""Weights in the memory of learner rank 0, which engines of its host map and those of other hosts get as a stream."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, VLLMWeightSyncClient, WeightSource

from buffer.flight.memory_stream import Offer
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.weight_stream import WeightStream
from learner.errors import LearnerError

Way = Literal["auto", "shm", "stream"]
"""shm: the engines map the memory; stream: it is sent to them; auto: sent to those of other hosts."""

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
        self.content = memoryview(memory)
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
        self.content = memoryview(b"")
        self._file.close()


class HostsClient(VLLMWeightSyncClient, Protocol):
    """vLLM's client to the engines, with what those on other hosts need."""

    @property
    def elsewhere(self) -> Sequence[str]:
        """The engines on other hosts than this process."""

    @property
    def incarnations(self) -> Sequence[str]:
        """All engines."""

    def stage_weights(self, updates: list[dict[str, Any]]) -> Callable[[], None]:
        """Let the engines load the updates that follow while they generate. Returns what waits until they have."""

    def install_weights(self, updates: list[dict[str, Any]]) -> None:
        """Let the engines take the updates in one pause, as the version that the client has."""

    def fetch_weights(self, offer: Offer, engines: Sequence[str]) -> None:
        """Let the hosts of `engines` copy the memories of an offer. Return when all have; drop those that cannot."""


class SharedMemorySender:
    """Writes weights into shared memory, from which `actors.engine.weight_receiver` loads them.

    It has the interface of vLLM's `TrainerWeightTransferEngine`. Without an adapter each send carries all weights. With
    one, the first send carries the base, which the engines keep, and every send carries the adapter, which they merge.

    Args:
        client: makes the engines receive; None on the ranks that are not the sender, which take part in gathering.
        stream: carries the weights to engines on other hosts; it stays open when the sender is shut down.

    Attributes:
        meanwhile: called on every rank while the engines load the weights and go on generating.

    Raises LearnerError if `way` is shm and an engine is on another host.
    """

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self, client: HostsClient | None, source: PolicySource, stream: WeightStream, *, way: Way = "auto"
    ) -> None:
        self.client = client
        self._stream = stream
        self._way = way
        parts: list[tuple[PolicySource, dict[str, Any]]] = [(source, {})]
        if adapted := source.adapted:
            about = {"scale": adapted[0].scale, "transposed": [weight.name for weight in adapted if weight.transposed]}
            parts = [(source.only("base"), {"keep": True}), (source.only("adapter"), about)]
        self._parts = [
            (part, about, None if client is None else SharedMemory(part.metadata())) for part, about in parts
        ]
        self._base_sent = False
        if client is None:
            return
        if way == "shm" and (far := client.elsewhere):
            raise LearnerError(
                f"`learner.broadcast.backend` is shm, which sends weights through the memory of one host, and "
                f"{', '.join(far)} run on other hosts than learner rank 0; set learner.broadcast.backend=auto"
            )
        client.init_weight_transfer_engine({})

    def _streamed(self, client: HostsClient) -> Sequence[str]:
        """Return the engines to which the weights are sent."""
        return client.incarnations if self._way == "stream" else client.elsewhere

    def send_weights(self) -> None:
        """Write the weights that are due and let the engines load them. Called on every rank."""
        due = self._parts[-1:] if self._base_sent else self._parts
        self._stream.withdraw()
        # Engines continue to generate while the weights are written and sent; they pause only to load them.
        for source, _, memory in due:
            if memory is not None:
                memory.write(source)
            else:
                for _ in source:
                    pass
        self._base_sent = True
        if self.client is None:
            self.meanwhile()
            return
        ready = [(memory, about) for _, about, memory in due if memory is not None]
        if engines := self._streamed(self.client):
            offer = self._stream.offer({memory.info["path"]: memory.content for memory, _ in ready})
            self.client.fetch_weights(offer, engines)
        updates = [memory.info | about for memory, about in ready]
        wait = self.client.stage_weights(updates)
        self.meanwhile()
        wait()
        self.client.install_weights(updates)

    def shutdown(self) -> None:
        """Free the shared memory."""
        self._stream.withdraw()
        for _, _, memory in self._parts:
            if memory is not None:
                memory.close()
