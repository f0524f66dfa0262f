"""The control plane of a broadcast: each call reaches all engines, and a dead engine does not delay the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ray
from ray.actor import ActorHandle

from actors.errors import EngineDied
from buffer.flight.memory_stream import Offer


@dataclass
class SyncClient:
    """Implements vLLM's `VLLMWeightSyncClient` over the engines of a pool, for one broadcast.

    Each call waits for all engines. The pool restarts an engine that died or did not answer in time, and the client
    continues with the others. A call raises WeightTransferError if an engine rejects it, and EngineDied if no engine is
    left; both messages name the engines.

    incarnations: names of the engines that are left; a name changes when its worker is restarted.
    nodes: Ray's id of the node of each engine.
    version: policy version of the weights; set it before `install_weights` and `finish_weight_update`.
    """

    died_error: ClassVar = EngineDied

    _pool: ActorHandle
    _get: Callable[[ray.ObjectRef, float], Any]
    incarnations: list[str]
    nodes: dict[str, str]
    _ranks_per_engine: int
    timeout_s: float
    version: int = 0
    _lost: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Return the names of the workers."""
        return [incarnation.rpartition(".")[0] for incarnation in self.incarnations]

    @property
    def ranks(self) -> int:
        """Return the number of engine processes that receive weights."""
        return len(self.incarnations) * self._ranks_per_engine

    @property
    def elsewhere(self) -> list[str]:
        """Return the engines on other nodes than this process."""
        here = ray.get_runtime_context().get_node_id()
        return [name for name in self.incarnations if self.nodes[name] != here]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos = [dict(init_info) for _ in self.incarnations]
        if "rank_offset" in init_info:
            # Each engine has ranks of its own in the transfer's process group.
            for index, info in enumerate(infos):
                info["rank_offset"] += index * self._ranks_per_engine
        self._all("init_weight_transfer_engine", infos)

    def fetch_weights(self, offer: Offer, engines: Sequence[str]) -> None:
        """Let the hosts of `engines` copy the memories of an offer. The engines of those that cannot are dropped: they
        keep their weights, and the pool gives them no work before the next broadcast."""
        call = self._pool.fetch_weights.remote(list(engines), offer, self.timeout_s)
        self._drop(self._get(call, 2 * self.timeout_s))

    def stage_weights(self, updates: list[dict[str, Any]]) -> Callable[[], None]:
        """Let the engines load the updates that follow while they generate. Returns what waits until they have."""
        arguments = [updates] * len(self.incarnations)
        call = self._pool.update_engines.remote(self.incarnations, "stage_weights", arguments, self.timeout_s)
        return lambda: self._drop(self._get(call, 2 * self.timeout_s))

    def install_weights(self, updates: list[dict[str, Any]]) -> None:
        """Let the engines take the updates as `version` in one pause, and resume requests."""
        self._all("install_weights", [(updates, self.version)] * len(self.incarnations))
        self._get(self._pool.weights_arrived.remote(self.incarnations, self.version), self.timeout_s)

    def start_weight_update(self) -> None:
        self._all("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._all("update_weights", [update_info] * len(self.incarnations))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Install the weights as `version` (or `weight_version`) and resume requests."""
        version = self.version if weight_version is None else int(weight_version)
        self._all("finish_weight_update", [version] * len(self.incarnations))
        self._get(self._pool.weights_arrived.remote(self.incarnations, version), self.timeout_s)

    def _all(self, method: str, arguments: Sequence[Any] = ()) -> None:
        """Call `method` on every engine, with one argument for each if there are `arguments`."""
        call = self._pool.update_engines.remote(self.incarnations, method, list(arguments), self.timeout_s)
        self._drop(self._get(call, 2 * self.timeout_s))

    def _drop(self, lost: dict[str, str]) -> None:
        """Continue without the engines of `lost`, given with the reasons. Raises EngineDied if none is left."""
        self._lost |= lost
        self.incarnations = [name for name in self.incarnations if name not in lost]
        if not self.incarnations:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._lost.items())
            raise EngineDied(f"no engine is left to take weights ({reasons})")
