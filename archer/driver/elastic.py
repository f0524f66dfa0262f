"""Elastic rollouts: the number of workers follows what the cluster can place, between two bounds.

A thread of the driver looks every few seconds. The cluster has room for n workers if the packing of the start of a run
places n of them beside the run's other processes on the nodes that are alive, and if those that do not run yet fit into
what Ray says is free. The number changes when several looks in a row agree, so that the restart of a rank, or a node
that is away for a moment, moves nothing. A cluster with an autoscaler is asked to hold the largest number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from actors.errors import ActorError
from actors.pool.client import PoolClient
from archer.config.models import RunConfig
from archer.driver.packing import Resources, Undecided, bundles, place, positive, worker_resources

LOOK_S = 5.0
GROW_AFTER = 3
"""Looks in a row that must see more room: 15 s, in which a restarted process takes its place again."""
SHRINK_AFTER = 6
"""Looks in a row that must see less room: 30 s, about as long as Ray needs to notice that a node is lost."""
_LEAVE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class Size(NamedTuple):
    """The number of workers that a pool should have, and of those that have a process."""

    wanted: int
    placed: int


class SizePolicy:
    """Decides on the number of workers from the room that successive looks find.

    A change needs `GROW_AFTER` or `SHRINK_AFTER` looks in a row that see more room, or less. It goes to what all of
    these looks allow: the least room among them when growing, the most when shrinking.
    """

    def __init__(self, least: int, most: int) -> None:
        self._bounds = least, most
        self._seen: list[int] = []

    def decide(self, wanted: int, room: int) -> int:
        """Return the number of workers after a look that found room for `room`, of which `wanted` should run now."""
        least, most = self._bounds
        room = min(max(room, least), most)
        direction = (room > wanted) - (room < wanted)
        if self._seen and ((self._seen[-1] > wanted) - (self._seen[-1] < wanted)) != direction:
            self._seen.clear()
        if direction == 0:
            self._seen.clear()
            return wanted
        self._seen.append(room)
        if len(self._seen) < (GROW_AFTER if direction > 0 else SHRINK_AFTER):
            return wanted
        found = min(self._seen) if direction > 0 else max(self._seen)
        self._seen.clear()
        return found


def room_for(config: RunConfig, placed: int, nodes: Sequence[Resources], free: Sequence[Resources]) -> int:
    """Return the number of workers that a cluster has room for, at most `rollout.workers.max`.

    Args:
        placed: workers that have a process.
        nodes: the resources of each node that is alive.
        free: what is free on each of them.
    """
    worker = positive(worker_resources(config))
    least, most = config.rollout.least_workers, config.rollout.most_workers
    others = bundles(config)
    for _ in range(least if worker else 0):
        others.remove(worker)
    by_nodes = _most(lambda number: [*others, *[worker] * number], nodes, most) if worker else most
    by_free = placed + _most(lambda number: [worker] * number, free, most - placed) if worker else most
    return min(by_nodes, by_free)


def _most(wanted: Callable[[int], list[Resources]], nodes: Sequence[Resources], limit: int) -> int:
    """Return the largest number up to `limit` whose bundles the nodes hold."""
    for number in range(limit, 0, -1):
        try:
            if place(wanted(number), nodes) is not None:
                return number
        except Undecided:
            continue
    return 0


@contextmanager
def elastic(config: RunConfig, pool: PoolClient, changed: Callable[[int, int], None]) -> Iterator[None]:
    """Resize the pool in this block, if `rollout.workers` is a range.

    Args:
        changed: called with the numbers before and after each change, in a thread.
    """
    if not config.rollout.is_elastic:
        yield
        return
    _request([*bundles(config), *[positive(worker_resources(config))] * _beyond_least(config)])
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(config, pool, changed, ended), name="elastic", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LEAVE_TIMEOUT_S)
        _request([])


def _beyond_least(config: RunConfig) -> int:
    return config.rollout.most_workers - config.rollout.least_workers


def _request(wanted: list[Resources]) -> None:
    """Ask the cluster's autoscaler, if there is one, to hold these bundles; [] takes the request back."""
    from ray.autoscaler.sdk import request_resources

    try:
        request_resources(bundles=[bundle for bundle in wanted if bundle])
    except (RayError, RuntimeError, AssertionError) as error:  # the last two without a connection, at the end of a run
        log.warning("the autoscaler was not asked for more rollout workers: %s", error)


def _follow(config: RunConfig, pool: PoolClient, changed: Callable[[int, int], None], ended: threading.Event) -> None:
    policy = SizePolicy(config.rollout.least_workers, config.rollout.most_workers)
    while not ended.wait(LOOK_S):
        try:
            look(config, pool, policy, changed)
        except (RayError, ActorError) as error:  # the next look may succeed; a pool that has ended ends the run itself
            log.warning("the number of rollout workers was not decided: %s", error)


def look(config: RunConfig, pool: PoolClient, policy: SizePolicy, changed: Callable[[int, int], None]) -> None:
    """Look at the cluster once, and resize the pool if the policy decides so."""
    size = Size(*pool.size())
    wanted = policy.decide(size.wanted, room_for(config, size.placed, *cluster_resources()))
    if wanted == size.wanted:
        return
    log.info("rollout workers: %d -> %d, of which %d had a process", size.wanted, wanted, size.placed)
    pool.resize(wanted)
    changed(size.wanted, wanted)


def cluster_resources() -> tuple[list[Resources], list[Resources]]:
    """Return the resources of each node that is alive, and what is free on each of them."""
    from ray._private.state import available_resources_per_node  # late and private: Ray has no other way

    free: dict[str, Any] = available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in alive], [free.get(node["NodeID"], {}) for node in alive]
