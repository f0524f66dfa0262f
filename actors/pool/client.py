"""The pool as the learner and the run see it: blocking calls from any process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.config import RolloutConfig
from actors.errors import ActorError, RolloutTimeout, StaleWorkersError, WorkersLostError
from actors.pool.weight_sync import SyncClient
from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, WorkerStatus

# The pool keeps the caller's own timeouts; this much later the pool itself counts as hung.
GRACE_S = 30.0


class PoolClient:
    """Satisfies `learner.protocols.RolloutService`. Picklable; raises ActorError only."""

    stale_error = StaleWorkersError

    def __init__(self, pool: ActorHandle, config: RolloutConfig) -> None:
        self._pool = pool
        self._config = config

    def start_workers(self) -> None:
        """Called once, by `start_pool`."""
        self._get(self._pool.start.remote(), self._config.engine.startup_timeout_s)

    def ready(self, timeout_s: float) -> None:
        """Wait until every worker has come up. Raises RolloutTimeout, which names those that have not."""
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
    ) -> CollectReport:
        """Play the episodes of environment seeds first_seed, first_seed + 1, ... and wait for all of them.

        With a `group` greater than 1, episode e (first_seed, first_seed + 1, ...) plays environment seed e // group, so
        that so many episodes start alike.
        With `store` each is in replay when this returns. Raises StaleWorkersError where no worker holds the current
        weights: broadcast, then call again with the same arguments, and it goes on where it stopped.
        """
        return self._get(self._pool.collect.remote(episodes, first_seed, group, store, greedy, timeout_s), timeout_s)

    def start(self, *, first_seed: int, episodes_per_version: int, max_staleness: int, group: int = 1) -> None:
        """Play episodes on and on, from `first_seed`, as fast as the policy's version admits:

        started <= (versions since this call + max_staleness + 1) * episodes_per_version
        """
        self._get(self._pool.start_stream.remote(first_seed, episodes_per_version, max_staleness, group), GRACE_S)

    def stop(self) -> None:
        """End what `start` began; episodes in flight are finished and stored."""
        self._get(self._pool.stop_stream.remote(), self._config.request_timeout_s)

    def report(self, *, at_least: int = 0, timeout_s: float = 600.0) -> CollectReport:
        """Wait until `at_least` episodes of `start` have finished since the last report, and report all of them."""
        return self._get(self._pool.report.remote(at_least, timeout_s), timeout_s)

    def request(
        self, prompts: Sequence[np.ndarray], n: int | np.ndarray, *, logprobs: bool = True
    ) -> Future[FreshActions]:
        """`n` actions of the current policy for each state (int32 token ids), or of each state its own number.

        Without `logprobs` the answer's are empty, and the engines work less. A future that is cancelled tells them that
        nobody waits.
        """
        if not prompts:
            raise ActorError("a request for actions holds no states")
        counts = np.broadcast_to(np.asarray(n, np.int32), len(prompts))
        if counts.min() < 1:
            raise ActorError(f"a request for {counts.min()} actions at a state; ask for at least 1")
        offsets = np.cumsum([0, *(len(prompt) for prompt in prompts)], dtype=np.int64)
        tokens = np.concatenate([np.asarray(prompt, np.int32) for prompt in prompts])
        result: Future[FreshActions] = Future()

        reference = self._pool.request.remote(tokens, offsets, counts, logprobs)

        def finish(answer: Any) -> None:
            if not result.set_running_or_notify_cancel():
                return
            # `answer` may hold what Ray raised; `_plain` tells which error it was.
            error = answer.exception()
            if error is None:
                result.set_result(answer.result())
            else:
                result.set_exception(_plain(error))

        reference.future().add_done_callback(finish)
        result.add_done_callback(lambda done: ray.cancel(reference) if done.cancelled() else None)
        return result

    def workers(self) -> list[WorkerStatus]:
        return self._get(self._pool.workers.remote(), GRACE_S)

    def resize(self, workers: int) -> None:
        """Grow or shrink the pool. New workers take work once a broadcast has reached them."""
        self._get(self._pool.resize.remote(workers), self._config.request_timeout_s)

    def sync_client(self, timeout_s: float | None = None) -> SyncClient:
        """Hands weights to all engines that are up; waits until there is one."""
        startup_s = self._config.engine.startup_timeout_s
        engines = self._get(self._pool.engines.remote(startup_s), startup_s)
        return SyncClient(
            self._pool, engines, self._config.engine.tensor_parallel, timeout_s or self._config.request_timeout_s
        )

    def probe(self, tokens: np.ndarray, timeout_s: float | None = None) -> list[ProbeAnswer]:
        """Each ready engine's log p(tokens[i + 1] | tokens[: i + 1]) at the sampling temperature."""
        limit = timeout_s or self._config.request_timeout_s
        return self._get(self._pool.probe.remote(np.asarray(tokens, np.int32), limit), limit)

    def metrics_targets(self) -> list[tuple[str, str, str]]:
        """(role, name, "host:port") of each worker's Prometheus endpoint, vLLM's own metrics included."""
        return self._get(self._pool.metrics_targets.remote(), GRACE_S)

    def window(self) -> int:
        """The engines' window in tokens: no episode in replay is longer."""
        return self._get(self._pool.window.remote(), GRACE_S)

    def worker_actors(self) -> list[tuple[str, ActorHandle]]:
        """Name and Ray actor of each worker."""
        return self._get(self._pool.handles.remote(), GRACE_S)

    def shutdown(self) -> None:
        """End workers, engines and the pool."""
        try:
            self._get(self._pool.shutdown.remote(), GRACE_S)
        except WorkersLostError:
            return
        ray.kill(self._pool)

    def _get(self, reference: ray.ObjectRef, timeout_s: float | None) -> Any:
        try:
            return ray.get(reference, timeout=None if timeout_s is None else timeout_s + GRACE_S)
        except GetTimeoutError:
            raise RolloutTimeout(
                f"the pool of rollout workers did not answer within {timeout_s:g} s; see the log of the RolloutPool "
                "actor in the Ray session folder"
            ) from None
        except (RayTaskError, RayActorError) as error:
            raise _plain(error) from None


def _plain(error: BaseException) -> BaseException:
    """The error as it was raised, without Ray's wrapping."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return error.cause
    if isinstance(error, RayActorError):
        return WorkersLostError(f"the pool of rollout workers is gone: {error}")
    return error
