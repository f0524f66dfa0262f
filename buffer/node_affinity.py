"""Placement of a Ray actor or task on the node of the calling process."""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def this_node() -> NodeAffinitySchedulingStrategy:
    """Return the strategy that pins an actor or a task to the node of this process.

    A run survives the loss of any node except the driver's, so a service that it cannot replace shares that node.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
