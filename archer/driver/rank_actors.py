"""The learner's ranks as Ray actors: placed together, in one process group, watched until the last one ends.

Invariants: a rank starts only if there is room for all; if one ends with an error, all end; when `run_ranks` returns or
raises, no rank is left and their resources are free.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from archer.driver.board import BoardFollower
from archer.driver.packing import Resources, positive
from archer.errors import RunError
from learner.config import LearnerConfig
from learner.entry import Meeting, open_store, run_rank
from learner.train_args import TrainArgs

if TYPE_CHECKING:
    from torch.distributed import TCPStore

GRACE_S = 5.0
"""Seconds in which the other ranks may report their own errors, after one has failed."""
ASK_EVERY_S = 10.0
_POLL_S = 0.5


class SilentRankError(RunError):
    """A rank does not answer, although its process exists."""


class LearnerRank:
    """One rank of the learner, in a process of its own. While `run` trains in one thread, `node` answers in another."""

    def __init__(self) -> None:
        self._store: TCPStore | None = None

    def node(self) -> str:
        """Return the id of this rank's node."""
        return str(ray.get_runtime_context().get_node_id())

    def open_store(self, ranks: int, timeout_s: float) -> Meeting:
        """Return where the ranks meet. Rank 0 opens the store there."""
        meeting, self._store = open_store(ray.util.get_node_ip_address(), ranks, timeout_s)
        return meeting

    def run(self, args: TrainArgs, rank: int, meeting: Meeting) -> None:
        """Train to the end."""
        run_rank(args, rank, meeting, self._store)


def run_ranks(args: TrainArgs, follower: BoardFollower, start_timeout_s: float) -> dict[int, BaseException]:
    """Run the ranks to their end. Return the error of each rank that failed; none if all have ended in order.

    The calling thread waits in Python alone, so that Ctrl-C interrupts it.

    Raises:
        RunError: if the cluster has no room for the ranks, or they do not start, within `start_timeout_s`.
        Exception: the error of `follower`, if the follower ends first.
    """
    learner = args.learner
    with _actors(learner, follower, start_timeout_s) as actors:
        deadline = time.monotonic() + start_timeout_s
        nodes = _answers([actor.node.remote() for actor in actors], follower, deadline)
        # The ranks of a node are neighbours, whose collectives cross no network.
        actors = [
            actor for node in dict.fromkeys(nodes) for actor, own in zip(actors, nodes, strict=True) if own == node
        ]
        opening = actors[0].open_store.remote(learner.ranks, learner.timeout_s * 2)
        [meeting] = _answers([opening], follower, deadline)
        running = {rank: actor.run.remote(args, rank, meeting).future() for rank, actor in enumerate(actors)}
        return _watch(actors, running, follower, learner.timeout_s)


@contextmanager
def _actors(learner: LearnerConfig, follower: BoardFollower, start_timeout_s: float) -> Iterator[list[Any]]:
    """Start the actors where Ray has room for all of them; end them with the block."""
    each = positive({"CPU": learner.cpus_per_rank, "GPU": float(learner.use_gpu), **learner.resources})
    group = placement_group([each] * learner.ranks, strategy="PACK") if each else None
    try:
        if group is not None:
            _await_room(group, learner.ranks, follower, start_timeout_s)
        started = [_start(each, group, index) for index in range(learner.ranks)]
        try:
            yield started
        finally:
            for actor in started:
                with suppress(RayError):  # the error that ended the block explains more
                    ray.kill(actor)
    finally:
        if group is not None:
            remove_placement_group(group)


def _start(each: Resources, group: PlacementGroup | None, index: int) -> Any:
    """Return a new actor that holds the resources `each`, of the bundle `index` of `group`."""
    custom = {name: amount for name, amount in each.items() if name not in ("CPU", "GPU")}
    placed = "DEFAULT" if group is None else PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    options = {"num_cpus": each.get("CPU", 0), "num_gpus": each.get("GPU", 0), "resources": custom}
    return ray.remote(LearnerRank).options(**options, max_concurrency=2, scheduling_strategy=placed).remote()


def _await_room(group: PlacementGroup, ranks: int, follower: BoardFollower, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not group.wait(_POLL_S):
        follower.check()
        if time.monotonic() > deadline:
            raise RunError(
                f"the Ray cluster had no room for the {ranks} ranks of the learner within cluster.start_timeout_s "
                f"({timeout_s:g} s); free some of its resources, or lower learner.ranks or learner.cpus_per_rank"
            )


def _answers(calls: Sequence[Any], follower: BoardFollower, deadline: float) -> list[Any]:
    """Return the answers of one call to each rank. Raises RunError if one has none at `deadline`."""
    futures: list[Future[Any]] = [call.future() for call in calls]
    missing = set(futures)
    while missing and time.monotonic() < deadline:
        done, missing = wait(missing, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        follower.check()
    if missing:
        late = ", ".join(str(number) for number, future in enumerate(futures) if future in missing)
        raise RunError(f"the learner could not start: rank {late} did not answer within cluster.start_timeout_s")
    return [future.result() for future in futures]


def _watch(
    actors: Sequence[Any], running: Mapping[int, Future[None]], follower: BoardFollower, silent_s: float
) -> dict[int, BaseException]:
    """Return the errors of the ranks when all have ended in order, or some time after the first has failed."""
    asked: dict[int, tuple[float, Future[Any]]] = {}
    while left := {rank: future for rank, future in running.items() if not future.done()}:
        wait([*left.values(), follower.done], timeout=ASK_EVERY_S, return_when=FIRST_COMPLETED)
        follower.check()
        if any(future.done() and future.exception() for future in running.values()):
            wait(running.values(), timeout=GRACE_S)
            break
        if silent := _silent(actors, left, asked, silent_s):
            return silent
    ended = {rank: future.exception() for rank, future in running.items() if future.done()}
    return {rank: error for rank, error in ended.items() if error is not None}


def _silent(
    actors: Sequence[Any], left: Mapping[int, Any], asked: dict[int, tuple[float, Future[Any]]], silent_s: float
) -> dict[int, BaseException]:
    """Return an error for each rank that has not answered for `silent_s`, and ask those that have."""
    now = time.monotonic()
    for rank in left:
        if rank not in asked or asked[rank][1].done():
            asked[rank] = now, actors[rank].node.remote().future()
    return {
        rank: SilentRankError(f"learner rank {rank} has not answered for {silent_s:g} s")
        for rank in left
        if now - asked[rank][0] > silent_s
    }
