"""The plan of a run: placement, and the memory of each process, checked against the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archer.config.models import RunConfig
from archer.errors import ConfigError, RunError
from archer.planning.counting import without_data
from archer.planning.engines import engine_memory
from archer.planning.models import Shape, count, find_shape, policy_shape
from archer.planning.placement import Node, Place, assumed_nodes, placement
from archer.planning.ranks import most, rank_memory
from archer.planning.stage import Memory

GIB = 2.0**30


@dataclass(frozen=True)
class Plan:
    """Where the processes of a run go, and what they hold.

    Attributes:
        policy, backbone: the models, and where their shapes are from.
        parameters: number of parameters of the policy.
        tokens: tokens of an episode that the memory is planned for.
        assumed: whether the nodes are ours, because none were given.
        ranks: memory of a learner rank in each stage.
        engine: memory of an engine, on each of its GPUs.
    """

    policy: Shape
    backbone: Shape | None
    parameters: int
    tokens: int
    nodes: Sequence[Node]
    assumed: bool
    places: Sequence[Sequence[Place]]
    ranks: dict[str, Memory]
    engine: Memory

    def on_gpus(self, node: int) -> list[tuple[list[Place], float]]:
        """Return the processes on each GPU of a node, and the bytes that they hold there together."""
        found = []
        for gpu in range(int(self.nodes[node].gpu)):
            processes = [place for place in self.places[node] if gpu in place.gpus]
            found.append((processes, sum(self.held(place).total for place in processes)))
        return found

    def on_host(self, node: int) -> float:
        """Return the bytes that processes hold in the memory of a node."""
        processes = [place for place in self.places[node] if place.kind != "replay process"]
        return sum(self.held(place).host if place.gpus else self.held(place).total for place in processes)

    def held(self, place: Place) -> Memory:
        """Return the memory of a process; replay's depends on its episodes and is not planned."""
        return {"rollout worker": self.engine, "learner rank": most(self.ranks)}.get(place.kind, Memory())


def make_plan(
    config: RunConfig, nodes: Sequence[Node] = (), *, parameters: float | None = None, tokens: int | None = None
) -> Plan:
    """Return the plan of a run on `nodes`, by default on nodes that are assumed.

    Args:
        parameters: the size of a policy whose configuration cannot be had.
        tokens: tokens of an episode; by default the window, the longest that there can be.

    Raises:
        ConfigError: a model that does not exist.
        RunError: the nodes cannot hold the run, with the arithmetic.
    """
    if config.mode == "inline":
        raise ConfigError("`mode` is inline, one process on this machine: there is nothing to place")
    policy = policy_shape(config, parameters)
    critic = config.learner.critic
    own = config.algorithm_config.has_critic and critic.build is None and critic.backbone != "policy"
    backbone = find_shape(critic.backbone, "`learner.critic.backbone`") if own else None
    window = _window(config, policy)
    tokens = min(tokens or window, window)
    assumed = not nodes
    nodes = nodes or assumed_nodes(config)
    places = placement(config, nodes)
    _check_engines(config, places)
    on_gpus = config.rollout.gpus_per_worker > 0
    gpu_gib = min(node.gpu_gib for node in nodes if node.gpu) if on_gpus else 0.0
    with without_data() as mode:
        ranks = rank_memory(mode, config, policy, backbone, tokens)
        engine = engine_memory(
            mode,
            config.rollout.engine,
            policy.config,
            window=window,
            backend=config.broadcast_backend,
            gpu_gib=gpu_gib,
        )
    plan = Plan(policy, backbone, count(policy.config), tokens, nodes, assumed, places, ranks, engine)
    for node in range(len(nodes)):
        _require_memory(plan, node)
    return plan


def _window(config: RunConfig, policy: Shape) -> int:
    window = config.rollout.engine.max_model_len or getattr(
        policy.config.get_text_config(), "max_position_embeddings", None
    )
    if window is None:
        raise ConfigError("the model's configuration names no window; set rollout.engine.max_model_len")
    return int(window)


def _check_engines(config: RunConfig, places: Sequence[Sequence[Place]]) -> None:
    """Refuse engines whose GPUs Ray does not give them, and weights that cannot travel. Raises RunError."""
    rollout = config.rollout
    if 0 < rollout.gpus_per_worker < rollout.engine.tensor_parallel:
        raise RunError(
            f"`rollout.engine.tensor_parallel` is {rollout.engine.tensor_parallel}, and each worker reserves "
            f"{rollout.gpus_per_worker:g} GPU; set rollout.gpus_per_worker={rollout.engine.tensor_parallel}"
        )
    of_engines = {node for node, found in enumerate(places) if any(p.kind == "rollout worker" for p in found)}
    of_ranks = {node for node, found in enumerate(places) if any(p.kind == "learner rank" for p in found)}
    if config.learner.broadcast.backend == "shm" and len(of_engines | of_ranks) > 1:
        raise RunError(
            "`learner.broadcast.backend` shm sends weights through the memory of one machine, and engines and learner "
            f"are on nodes {', '.join(map(str, sorted(of_engines | of_ranks)))}; set learner.broadcast.backend=auto, "
            "or plan nodes that hold all of them together"
        )


def _require_memory(plan: Plan, node: int) -> None:
    """Raise RunError if the memory of a node or of one of its GPUs does not suffice."""
    kind = plan.nodes[node]
    for gpu, (processes, held) in enumerate(plan.on_gpus(node)):
        if held > kind.gpu_gib * GIB:
            raise RunError(
                f"GPU {gpu} of node {node} has {kind.gpu_gib:g} GiB, and {_names(processes)} needs {held / GIB:.1f} "
                f"GiB: {_sum(plan, processes)}; {_advice(processes)}"
            )
    if kind.host_gib and (held := plan.on_host(node)) > kind.host_gib * GIB:
        processes = [place for place in plan.places[node] if place.kind != "replay process"]
        raise RunError(
            f"node {node} has {kind.host_gib:g} GiB of memory, and {_names(processes)} need {held / GIB:.1f} GiB; "
            f"{_advice(processes)}"
        )


def _names(processes: Sequence[Place]) -> str:
    return " and ".join(f"{place.kind} {place.number}" for place in processes)


def _sum(plan: Plan, processes: Sequence[Place]) -> str:
    parts = [part for place in processes for part in plan.held(place).device.items()]
    return " + ".join(f"{name} {amount / GIB:.1f}" for name, amount in parts if amount)


def _advice(processes: Sequence[Place]) -> str:
    if any(place.kind == "learner rank" for place in processes):
        return (
            "divide it by more ranks with learner.zero_stage=3, or set learner.lora, learner.optimizer_offload, "
            "learner.activation_checkpointing or a smaller learner.micro_batch (docs/memory.md)"
        )
    return "lower rollout.engine.gpu_memory_utilization, or raise rollout.engine.tensor_parallel"
