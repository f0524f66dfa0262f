"""What the processes of a run reserve, and how they are packed on the nodes of a cluster. Needs no Ray.

Ray reserves CPUs and GPUs, and each process needs its resources on one node. The start of a run (`archer.driver.room`),
`archer plan` and elastic rollouts all pack by `place`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from archer.config.models import RunConfig

Resources = dict[str, float]

NAMES = ("CPU", "GPU")
_ATTEMPTS = 100_000
_MOST = 500
"""Places tried, and processes, at which `place` gives up."""


class Undecided(Exception):
    """The search for places takes too long."""


class Reservation(NamedTuple):
    """What processes of one kind reserve: the kind, their number, and the resources of each."""

    kind: str
    number: int
    each: Resources


def reservations(config: RunConfig) -> list[Reservation]:
    """Return what the processes of a run reserve at its start."""
    learner, replay = config.learner, config.replay
    return [
        Reservation("rollout worker", config.rollout.least_workers, worker_resources(config)),
        Reservation(
            "learner rank",
            learner.ranks,
            {"CPU": learner.cpus_per_rank, "GPU": float(learner.use_gpu), **learner.resources},
        ),
        Reservation(
            "replay process", replay.shards * replay.replication + 1, {"CPU": replay.cpus_per_shard, **replay.resources}
        ),
    ]


def worker_resources(config: RunConfig) -> Resources:
    """Return what each rollout worker reserves."""
    rollout = config.rollout
    return {"CPU": rollout.cpus_per_worker, "GPU": rollout.gpus_per_worker, **rollout.resources}


def total(config: RunConfig, resource: str) -> float:
    """Return what all processes of a run reserve of a resource."""
    return sum(found.number * found.each.get(resource, 0.0) for found in reservations(config))


def bundles(config: RunConfig) -> list[Resources]:
    """Return what each process reserves, without processes that reserve nothing."""
    each = [bundle for found in reservations(config) for bundle in [positive(found.each)] * found.number]
    return [bundle for bundle in each if bundle]


def positive(resources: Resources) -> Resources:
    """Return the resources of which there is any."""
    return {name: amount for name, amount in resources.items() if amount > 0}


def packs(wanted: Sequence[Resources], nodes: Sequence[Resources]) -> bool:
    """Return whether the nodes can hold all bundles, each on one node; True if the search takes too long."""
    try:
        return place(wanted, nodes) is not None
    except Undecided:
        return True


def place(wanted: Sequence[Resources], nodes: Sequence[Resources]) -> list[int] | None:
    """Return the index of the node of each bundle, or None if the nodes cannot hold all of them.

    Tries the places of the largest bundle first, the nodes in their order, and of equal nodes only one. Raises
    Undecided.
    """
    names = sorted({*NAMES, *(name for bundle in wanted for name in bundle)})
    for name in names:
        if sum(bundle.get(name, 0.0) for bundle in wanted) > sum(node.get(name, 0.0) for node in nodes) + 1e-9:
            return None
    if len(wanted) > _MOST:
        raise Undecided(f"{len(wanted)} processes")
    left = [{name: node.get(name, 0.0) for name in names} for node in nodes]
    order = sorted(range(len(wanted)), key=lambda index: sorted(wanted[index].values()), reverse=True)
    found = [-1] * len(wanted)
    attempts = 0

    def fill(rank: int) -> bool:
        nonlocal attempts
        if rank == len(order):
            return True
        bundle, tried = wanted[order[rank]], set()
        for index, node in enumerate(left):
            attempts += 1
            if attempts > _ATTEMPTS:
                raise Undecided(f"{_ATTEMPTS} places tried")
            state = tuple(round(node[name], 6) for name in names)
            if state in tried or any(node[name] + 1e-9 < amount for name, amount in bundle.items()):
                continue
            tried.add(state)
            for name, amount in bundle.items():
                node[name] -= amount
            found[order[rank]] = index
            if fill(rank + 1):
                return True
            for name, amount in bundle.items():
                node[name] += amount
        return False

    return found if fill(0) else None


def custom(config: RunConfig) -> list[str]:
    """Return the custom resources that processes of a run reserve."""
    return sorted({name for found in reservations(config) for name in found.each} - {*NAMES})


def text(resources: Resources, names: Iterable[str] = ()) -> str:
    """Return CPUs, GPUs and the resources of `names` as text, for example "4 CPU, 1 GPU"."""
    shown = (name for name in (*NAMES, *names) if resources.get(name))
    return ", ".join(f"{resources[name]:g} {name}" for name in shown) or "0 CPU"
