"""The control side of a broadcast: one call reaches all engines, and an engine that dies does not hold up the rest."""

from __future__ import annotations

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import EngineDied, WeightTransferError


class SyncClient:
    """vLLM's `VLLMWeightSyncClient` over the workers' engines; for one broadcast.

    Each call waits for all engines. One whose process ended, or that does not answer in time, is dropped, told to the
    pool and listed in `lost`; the call goes on with the others. Raises WeightTransferError where an engine refuses,
    and EngineDied where none is left, both with names.

    version: policy version of what is sent; set it before the update is finished.
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
        """Names that change when a worker is restarted."""
        return [incarnation for _, incarnation, _ in self._engines]

    @property
    def ranks(self) -> int:
        """Engine processes that receive weights."""
        return len(self._engines) * self._ranks_per_engine

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        def of_engine(index: int) -> tuple[dict[str, Any]]:
            info = dict(init_info)
            if "rank_offset" in info:
                # Engines don't know of each other; each gets its own ranks in the transfer's group.
                info["rank_offset"] += index * self._ranks_per_engine
            return (info,)

        self._all("init_weight_transfer_engine", of_engine)

    def shutdown_weight_transfer_engine(self) -> None:
        self._all("shutdown_weight_transfer_engine")

    def start_weight_update(self) -> None:
        """Freeze requests in flight, drop cached prefixes, make ready for weights."""
        self._all("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._all("update_weights", lambda index: (update_info,))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Put the weights in place as `version` (or `weight_version`), and let requests go on."""
        version = self.version if weight_version is None else int(weight_version)
        self._all("finish_weight_update", lambda index: (version,))
        ray.get(self._pool.weights_arrived.remote(self.incarnations, version), timeout=self.timeout_s)

    def _all(self, method: str, arguments: Any = lambda index: ()) -> None:
        references = {
            getattr(handle, method).remote(*arguments(index)): (name, incarnation)
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
            self._drop(gone, method)

    def _drop(self, gone: dict[str, str], method: str) -> None:
        for name, incarnation, _ in self._engines:
            if incarnation in gone:
                self.lost[name] = gone[incarnation]
                ray.get(self._pool.engine_failed.remote(incarnation), timeout=self.timeout_s)
        self._engines = [engine for engine in self._engines if engine[1] not in gone]
        if not self._engines:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.lost.items())
            raise EngineDied(f"no engine is left to take weights ({reasons})")
