"""The client of the pool: blocking calls from any process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from actors.config import RolloutConfig
from actors.errors import PoolUnreachable, RolloutTimeout, StaleWorkersError, WorkersLostError
from actors.pool.weight_sync import SyncClient
from actors.rollout.action_request import ActionRequest
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, Recovery, WorkerStatus
from buffer.telemetry.endpoint import Process

# The pool itself enforces the caller's timeouts; if it is this much later, the pool counts as hung.
GRACE_S = 30.0
_PROCESSES_TIMEOUT_S = 2.0


class PoolClient:
    """A picklable handle of the pool; satisfies `learner.protocols.RolloutService`. Its methods raise ActorError."""

    stale_error = StaleWorkersError

    def __init__(self, pool: ActorHandle, config: RolloutConfig) -> None:
        self._pool = pool
        self._config = config

    def ready(self, timeout_s: float) -> None:
        """Wait until every worker has started, or the least number of an elastic pool. Raises RolloutTimeout, which
        names the workers that have not.
        """
        self._get(self._pool.ready.remote(timeout_s), timeout_s)

    def collect(
        self,
        episodes: int,
        *,
        first_seed: int,
        group: int = 1,
        store: bool = True,
        greedy: bool = False,
        timeout_s: float | None = None,
        keep_every: int = 0,
    ) -> CollectReport:
        """Play episodes e = first_seed, first_seed + 1, ... and return the report when all have finished.

        Episode e plays environment seed e // group: `group` consecutive episodes start in the same state. With `store`,
        replay holds every episode when the call returns. The report has one of each `keep_every` groups. Raises
        StaleWorkersError if no worker holds the current weights; after a broadcast, a call with the same arguments
        continues with the unfinished episodes.
        """
        arguments = (episodes, first_seed, group, store, greedy, timeout_s, keep_every)
        return self._get(self._pool.collect.remote(*arguments), timeout_s)

    def start(
        self,
        *,
        first_seed: int,
        episodes_per_version: int,
        max_staleness: int,
        group: int = 1,
        keep_every: int = 0,
    ) -> None:
        """Play episodes from `first_seed` on until `stop`, as fast as the policy version allows:

        started <= (versions since this call + max_staleness + 1) * episodes_per_version

        Reports have one of each `keep_every` groups of episodes; 0 keeps none.
        """
        arguments = (first_seed, episodes_per_version, max_staleness, group, keep_every)
        self._get(self._pool.start_stream.remote(*arguments), GRACE_S)

    def admit(self, episodes: int) -> None:
        """Let what `start` began play this many more episodes of the current version."""
        self._get(self._pool.admit.remote(episodes), GRACE_S)

    def stop(self) -> None:
        """End what `start` began. Episodes in flight finish and are stored."""
        self._get(self._pool.stop_stream.remote(), self._config.request_timeout_s)

    def report(self, *, at_least: int = 0, timeout_s: float = 600.0) -> CollectReport:
        """Wait until `at_least` episodes of `start` have finished since the last report, and report on all of them."""
        return self._get(self._pool.report.remote(at_least, timeout_s), timeout_s)

    def recover(self) -> Recovery:
        """End what a learner that died has begun, and return where another one continues.

        Episodes in flight finish and are stored. An engine in the middle of an update is restarted. Engines may hold
        weights of the learner that died: broadcast before anything else.
        """
        return self._get(self._pool.recover.remote(), self._config.request_timeout_s)

    def request(
        self, prompts: Sequence[np.ndarray], n: int | np.ndarray, *, logprobs: bool = True
    ) -> Future[FreshActions]:
        """Request `n` actions of the current policy at each state (int32 token ids), or n[i] actions at state i.

        Without `logprobs` the engines compute none. Cancelling the future cancels the engines' work.
        """
        result: Future[FreshActions] = Future()
        reference = self._pool.request.remote(ActionRequest.of(prompts, n, logprobs))

        def finish(answer: Future[FreshActions]) -> None:
            if not result.set_running_or_notify_cancel():
                return
            if (error := answer.exception()) is None:
                result.set_result(answer.result())
            else:
                result.set_exception(_pool_error(error))

        reference.future().add_done_callback(finish)
        result.add_done_callback(lambda done: ray.cancel(reference) if done.cancelled() else None)
        return result

    def workers(self) -> list[WorkerStatus]:
        return self._get(self._pool.workers.remote(), GRACE_S)

    def resize(self, workers: int) -> None:
        """Grow or shrink the pool. New workers take work after the next broadcast."""
        self._get(self._pool.resize.remote(workers), self._config.request_timeout_s)

    def size(self) -> tuple[int, int]:
        """Return the number of workers that the pool should have, and of those to which the cluster gave a process."""
        return self._get(self._pool.size.remote(), GRACE_S)

    def sync_client(self) -> SyncClient:
        """Return a client that sends weights to all running engines; waits until at least one runs."""
        startup_s = self._config.engine.startup_timeout_s
        engines = self._get(self._pool.engines.remote(startup_s), startup_s)
        ranks_per_engine = self._config.engine.tensor_parallel
        return SyncClient(
            self._pool, self._get, list(engines), engines, ranks_per_engine, self._config.request_timeout_s
        )

    def probe(self, tokens: np.ndarray, positions: np.ndarray) -> list[ProbeAnswer]:
        """Return each ready engine's log p(tokens[i] | tokens[:i]) at the sampling temperature, i in `positions`."""
        arguments = (np.asarray(given, np.int32) for given in (tokens, positions))
        return self._get(self._pool.probe.remote(*arguments), self._config.request_timeout_s)

    def processes(self) -> list[Process]:
        """Return the pool and each worker, whose endpoint also serves vLLM's metrics."""
        return self._get(self._pool.processes.remote(), _PROCESSES_TIMEOUT_S, grace_s=0.0)

    def window(self) -> int:
        """Return the context window of the engines in tokens, the maximum length of an episode."""
        return self._get(self._pool.window.remote(), GRACE_S)

    def shutdown(self) -> None:
        """End workers, engines and the pool."""
        try:
            self._get(self._pool.shutdown.remote(), GRACE_S)
        except WorkersLostError:
            return
        except PoolUnreachable:
            pass
        ray.kill(self._pool)

    def _get(self, reference: ray.ObjectRef, timeout_s: float | None, grace_s: float = GRACE_S) -> Any:
        try:
            return ray.get(reference, timeout=None if timeout_s is None else timeout_s + grace_s)
        except GetTimeoutError:
            raise RolloutTimeout(
                f"the pool of rollout workers did not answer within {timeout_s:g} s; see the log of the RolloutPool "
                "actor in the Ray session folder"
            ) from None
        except (RayTaskError, RayActorError) as error:
            raise _pool_error(error) from None


def _pool_error(error: BaseException) -> BaseException:
    if isinstance(error, RayActorError) and not isinstance(error, RayTaskError):
        # The lines after the first are ids and addresses of Ray.
        reason = str(error).splitlines()[0]
        if isinstance(error, ActorUnavailableError):
            return PoolUnreachable(f"the connection to the pool of rollout workers broke: {reason}")
        return WorkersLostError(f"the pool of rollout workers has ended: {reason}")
    return unwrapped(error)


def unwrapped(error: BaseException) -> BaseException:
    """Return the exception as the actor raised it, without Ray's wrapper."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
