"""Processes on the nodes and GPUs of a cluster, by the packing of the start of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from archer.config.models import RunConfig
from archer.driver.packing import Resources, Undecided, bundles, custom, place, positive, reservations, text, total
from archer.errors import ConfigError, RunError

GPU_GIB = 80.0
_FORM = "COUNT:cpu=N[,gpu=N][,gpu_gib=N][,host_gib=N][,RESOURCE=N]"
_MOST_NODES = 512


@dataclass(frozen=True)
class Node:
    """A kind of node: its resources in Ray, and its memory in GiB; a `host_gib` of 0 is not checked."""

    cpu: float
    gpu: float = 0.0
    gpu_gib: float = GPU_GIB
    host_gib: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()

    @property
    def resources(self) -> Resources:
        return {"CPU": self.cpu, "GPU": self.gpu, **dict(self.custom)}


DEFAULT_NODE = Node(cpu=96, gpu=8)


@dataclass
class Place:
    """A process on a node: its kind, its number among its kind, what it reserves, and the GPUs that it uses."""

    kind: str
    number: int
    reserved: Resources
    gpus: list[int] = field(default_factory=list)


def read_nodes(texts: Sequence[str]) -> list[Node]:
    """Return the nodes that `--nodes COUNT:cpu=N,gpu=N,gpu_gib=N,host_gib=N` describes. Raises ConfigError."""
    found: list[Node] = []
    for given in texts:
        match = re.fullmatch(r"(\d{1,3}):((?:[a-z_]+=\d+(?:\.\d+)?)(?:,[a-z_]+=\d+(?:\.\d+)?)*)", given)
        if match is None or int(match[1]) < 1:
            raise ConfigError(f"--nodes {given!r} is not of the form {_FORM}, for example 2:cpu=96,gpu=8,gpu_gib=80")
        amounts = {name: float(amount) for name, amount in (part.split("=") for part in match[2].split(","))}
        if "cpu" not in amounts:
            raise ConfigError(f"--nodes {given!r} has no cpu; the form is {_FORM}")
        known = {name: amount for name, amount in amounts.items() if name in ("cpu", "gpu", "gpu_gib", "host_gib")}
        others = tuple(sorted((name, amount) for name, amount in amounts.items() if name not in known))
        found += [Node(**known, custom=others)] * int(match[1])
    return found


def assumed_nodes(config: RunConfig) -> list[Node]:
    """Return as many of the usual nodes as a run needs, or, for a run without GPUs, one with what it reserves."""
    wanted = bundles(config)
    offered = tuple((name, total(config, name)) for name in custom(config))
    if not any("GPU" in bundle for bundle in wanted):
        return [Node(cpu=total(config, "CPU"), custom=offered)]
    usual = replace(DEFAULT_NODE, custom=offered)
    for number in range(1, _MOST_NODES):
        try:
            if place(wanted, [usual.resources] * number) is not None:
                return [usual] * number
        except Undecided:
            break
    return [usual]


def placement(config: RunConfig, nodes: Sequence[Node]) -> list[list[Place]]:
    """Return the processes on each node. Raises RunError, with the arithmetic, if the nodes cannot hold them.

    Processes that reserve nothing are listed with the first node.
    """
    every = [
        Place(found.kind, index, positive(found.each))
        for found in reservations(config)
        for index in range(found.number)
    ]
    packed = [process for process in every if process.reserved]
    try:
        at = place([process.reserved for process in packed], [node.resources for node in nodes])
    except Undecided as error:
        raise RunError(f"the search for a placement gave up ({error}); the run leaves it to Ray") from None
    if at is None:
        raise RunError(_no_room(config, nodes))
    found: list[list[Place]] = [[] for _ in nodes]
    found[0] += [process for process in every if not process.reserved]
    for process, node in zip(packed, at, strict=True):
        found[node].append(process)
    for processes in found:
        _assign_gpus(processes)
    return found


def _no_room(config: RunConfig, nodes: Sequence[Node]) -> str:
    names = custom(config)
    needs = ", ".join(f"{number} x {kind} ({text(each, names)})" for kind, number, each in reservations(config))
    has = ", ".join(f"[{text(node.resources, names)}]" for node in nodes)
    sums = []
    for name in ("CPU", "GPU", *names):
        needed = sum(number * each.get(name, 0.0) for _, number, each in reservations(config))
        sums.append(f"{needed:g} of {sum(node.resources.get(name, 0.0) for node in nodes):g} {name}")
    return (
        f"the nodes {has} have no room for {needs}: together {', '.join(sums)}, and each process needs its resources "
        "on one node; add a node, or lower what the processes reserve"
    )


def _assign_gpus(processes: Sequence[Place]) -> None:
    """Give each process its GPUs, in order; fractions share one while they fit."""
    following, shared, left = 0, -1, 0.0
    for process in processes:
        amount = process.reserved.get("GPU", 0.0)
        if amount >= 1:
            process.gpus = list(range(following, following + int(amount)))
            following += int(amount)
        elif amount > 0:
            if left + 1e-9 < amount:
                shared, left = following, 1.0
                following += 1
            left -= amount
            process.gpus = [shared]
