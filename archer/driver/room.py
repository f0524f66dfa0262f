"""Room for the processes of a run on the nodes of a Ray cluster.

Ray itself waits without limit and without a message until there is room for an actor.
"""

from __future__ import annotations

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from archer.config.models import RunConfig
from archer.errors import RunError

Resources = dict[str, float]

_NAMES = ("CPU", "GPU")
_ATTEMPTS = 100_000
_MOST = 500
"""Places tried, and processes, at which `packs` gives up; Ray then finds out."""


def _reservations(config: RunConfig) -> list[tuple[str, int, dict[str, float]]]:
    """Return what the processes of a run reserve: (kind of process, number, resources of each)."""
    rollout, learner, replay = config.rollout, config.learner, config.replay
    return [
        ("rollout worker", rollout.workers, {"CPU": rollout.cpus_per_worker, "GPU": rollout.gpus_per_worker}),
        ("learner rank", learner.ranks, {"CPU": learner.cpus_per_rank, "GPU": float(learner.use_gpu)}),
        ("replay process", replay.shards * replay.replication + 1, {"CPU": replay.cpus_per_shard}),
    ]


def total(config: RunConfig, resource: str) -> float:
    """Return what all processes of a run reserve of a resource."""
    return sum(number * each.get(resource, 0.0) for _, number, each in _reservations(config))


def require_room(config: RunConfig) -> None:
    """Reserve the resources of all processes for a moment. Raises RunError if the nodes have no room for them: at once
    if they could not hold them even if they were empty, else after `cluster.start_timeout_s`.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    enough = packs(_bundles(config), nodes)
    if enough and _fits(config):
        return
    processes = ", ".join(f"{number} x {kind} ({_text(each)})" for kind, number, each in _reservations(config))
    waited = f", after {config.cluster.start_timeout_s:g} s (cluster.start_timeout_s)" if enough else ""
    raise RunError(
        f"the Ray cluster has no room for {processes}{waited}. Its nodes have "
        f"{', '.join(f'[{_text(node)}]' for node in nodes)}, and {_text(ray.available_resources())} are free; each "
        "process needs its resources on one node. Free some, add a node, raise cluster.num_cpus if the run starts its "
        "own cluster, or lower what the processes reserve"
    )


def packs(bundles: list[Resources], nodes: list[Resources]) -> bool:
    """Return whether the nodes can hold all bundles, each bundle on one node.

    Tries the places of the largest bundle first, and of equal nodes only one. Returns True if the search takes too
    long.
    """
    for name in _NAMES:
        if sum(bundle.get(name, 0.0) for bundle in bundles) > sum(node.get(name, 0.0) for node in nodes) + 1e-9:
            return False
    if len(bundles) > _MOST:
        return True
    left = [{name: node.get(name, 0.0) for name in _NAMES} for node in nodes]
    largest_first = sorted(bundles, key=lambda bundle: sorted(bundle.values()), reverse=True)
    attempts = 0

    def place(index: int) -> bool:
        nonlocal attempts
        if index == len(largest_first):
            return True
        bundle, tried = largest_first[index], set()
        for node in left:
            attempts += 1
            if attempts > _ATTEMPTS:
                return True
            state = tuple(round(node[name], 6) for name in _NAMES)
            if state in tried or any(node[name] + 1e-9 < amount for name, amount in bundle.items()):
                continue
            tried.add(state)
            for name, amount in bundle.items():
                node[name] -= amount
            if place(index + 1):
                return True
            for name, amount in bundle.items():
                node[name] += amount
        return False

    return place(0)


def _bundles(config: RunConfig) -> list[Resources]:
    """Return what each process reserves, without processes that reserve nothing."""
    bundles = []
    for _, number, resources in _reservations(config):
        bundles += [{name: amount for name, amount in resources.items() if amount > 0}] * number
    return [bundle for bundle in bundles if bundle]


def _fits(config: RunConfig) -> bool:
    if not (bundles := _bundles(config)):
        return True
    group = placement_group(bundles)
    try:
        return group.wait(config.cluster.start_timeout_s)
    finally:
        remove_placement_group(group)


def _text(resources: dict[str, float]) -> str:
    """Return resources as text, for example "4 CPU, 1 GPU"."""
    return ", ".join(f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)) or "0 CPU"
