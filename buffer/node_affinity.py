"""Placement of a Ray actor or task on the node of the calling process."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def this_node() -> NodeAffinitySchedulingStrategy:
    """Return the scheduling strategy that pins an actor or a task to the node of this process.

    A run survives the loss of any node except the driver's. A service that the run cannot replace therefore shares the
    driver's node.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
