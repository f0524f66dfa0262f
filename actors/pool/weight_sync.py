"""The control plane of a broadcast: each call reaches all engines, and a dead engine does not delay the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import EngineDied, WeightTransferError


class SyncClient:
    """Implements vLLM's `VLLMWeightSyncClient` over the engines of a pool, for one broadcast.

    Each call waits for all engines. The client drops an engine that died or did not answer in time, reports it to the
    pool, lists it in `lost`, and continues with the others. A call raises WeightTransferError if an engine rejects it,
    and EngineDied if no engine is left; both messages name the engines.

    version: policy version of the weights; set it before `finish_weight_update`.
    lost: reason of the loss by worker name.
    """

    died_error = EngineDied

    def __init__(
        self,
        pool: ActorHandle,
        engines: list[tuple[str, str, ActorHandle]],
        ranks_per_engine: int,
        timeout_s: float,
    ) -> None:
        self._pool = pool
        self._engines = list(engines)
        self._ranks_per_engine = ranks_per_engine
        self.timeout_s = timeout_s
        self.version = 0
        self.lost: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self._engines]

    @property
    def incarnations(self) -> list[str]:
        """Return names that change when a worker is restarted."""
        return [incarnation for _, incarnation, _ in self._engines]

    @property
    def ranks(self) -> int:
        """Return the number of engine processes that receive weights."""
        return len(self._engines) * self._ranks_per_engine

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos = []
        for index in range(len(self._engines)):
            info = dict(init_info)
            if "rank_offset" in info:
                # Each engine has ranks of its own in the transfer's process group.
                info["rank_offset"] += index * self._ranks_per_engine
            infos.append(info)
        self._all("init_weight_transfer_engine", infos)

    def start_weight_update(self) -> None:
        """Freeze requests in flight, drop cached prefixes, and prepare for weights."""
        self._all("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._all("update_weights", [update_info] * len(self._engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Install the weights as `version` (or `weight_version`) and resume requests."""
        version = self.version if weight_version is None else int(weight_version)
        self._all("finish_weight_update", [version] * len(self._engines))
        ray.get(self._pool.weights_arrived.remote(self.incarnations, version), timeout=self.timeout_s)

    def _all(self, method: str, arguments: Sequence[Any] = ()) -> None:
        """Call `method` on every engine, with one argument for each if there are `arguments`."""
        references = {
            handle.update_engine.remote(method, *(arguments[index : index + 1])): (name, incarnation)
            for index, (name, incarnation, handle) in enumerate(self._engines)
        }
        done, late = ray.wait(list(references), num_returns=len(references), timeout=self.timeout_s)
        gone: dict[str, str] = {}
        for reference in late:
            gone[references[reference][1]] = f"no answer to {method} within {self.timeout_s:g} s"
        for reference in done:
            name, incarnation = references[reference]
            try:
                ray.get(reference)
            except RayActorError:
                gone[incarnation] = f"its process ended during {method}"
            except RayTaskError as error:
                if not isinstance(error.cause, EngineDied):
                    raise WeightTransferError(f"{method} failed on {name}: {error.cause}") from None
                gone[incarnation] = f"its engine ended during {method}"
        if gone:
            self._drop(gone)

    def _drop(self, gone: dict[str, str]) -> None:
        for name, incarnation, _ in self._engines:
            if incarnation in gone:
                self.lost[name] = gone[incarnation]
                ray.get(self._pool.engine_failed.remote(incarnation), timeout=self.timeout_s)
        self._engines = [engine for engine in self._engines if engine[1] not in gone]
        if not self._engines:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.lost.items())
            raise EngineDied(f"no engine is left to take weights ({reasons})")
