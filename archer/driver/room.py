"""Room for the processes of a run on the nodes of a Ray cluster.

Ray itself waits without limit and without a message until there is room for an actor.
"""

from __future__ import annotations

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from archer.config.models import RunConfig
from archer.driver.packing import bundles, custom, packs, reservations, text
from archer.errors import RunError


def require_room(config: RunConfig) -> None:
    """Reserve the resources of all processes for a moment. Raises RunError if the nodes have no room for them: at once
    if they could not hold them even if they were empty, else after `cluster.start_timeout_s`.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    enough = packs(bundles(config), nodes)
    if enough and _fits(config):
        return
    names = custom(config)
    processes = ", ".join(f"{number} x {kind} ({text(each, names)})" for kind, number, each in reservations(config))
    waited = f", after {config.cluster.start_timeout_s:g} s (cluster.start_timeout_s)" if enough else ""
    have = ", ".join(f"[{text(node, names)}]" for node in nodes)
    raise RunError(
        f"the Ray cluster has no room for {processes}{waited}. Its nodes have {have}, and "
        f"{text(ray.available_resources(), names)} are free; each process needs its resources on one node. Free some, "
        "add a node, raise cluster.num_cpus if the run starts its own cluster, or lower what the processes reserve"
    )


def _fits(config: RunConfig) -> bool:
    if not (wanted := bundles(config)):
        return True
    group = placement_group(wanted)
    try:
        return group.wait(config.cluster.start_timeout_s)
    finally:
        remove_placement_group(group)
