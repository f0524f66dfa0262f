"""A plan as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from archer.planning.placement import Place
from archer.planning.plan import GIB, Plan
from archer.planning.stage import Memory


def print_plan(plan: Plan, console: Console) -> None:
    """Print the models, the memory of each kind of process, and each node with its GPUs."""
    size = f"{plan.parameters / 1e9:.2f}B" if plan.parameters >= 1e8 else f"{plan.parameters / 1e6:.2f}M"
    console.print(f"policy: {size} parameters, from {plan.policy.source}")
    if plan.backbone is not None:
        console.print(f"critic's backbone: from {plan.backbone.source}")
    console.print(
        f"memory is that of episodes of {plan.tokens} tokens (--tokens), the largest micro-batch of each step"
    )
    columns = {f"learner rank, {stage}": memory for stage, memory in plan.ranks.items()} | {"engine": plan.engine}
    console.print(_memory_table(columns, plan))
    for memory in columns.values():
        for note in memory.notes:
            console.print(f"note: {note}", highlight=False)
    if plan.assumed:
        console.print("no --nodes given: as many nodes of this kind as the run needs")
    for index, node in enumerate(plan.nodes):
        size = f", {node.gpu:g} GPU of {node.gpu_gib:g} GiB" if node.gpu else ""
        host = f" of {node.host_gib:g}" if node.host_gib else ""
        held = plan.on_host(index)
        console.print(
            f"node {index}: {node.cpu:g} CPU{size}; its processes hold {held / GIB:.2f}{host} GiB of its memory"
        )
        for gpu, (processes, taken) in enumerate(plan.on_gpus(index)):
            if processes:
                each = ", ".join(f"{place.kind} {place.number}" for place in processes)
                console.print(f"  GPU {gpu}: {each}: {taken / GIB:.1f} of {node.gpu_gib:g} GiB")
        if line := _without_gpu(plan.places[index]):
            console.print(f"  {line}")
    console.print("driver, board, pool and limiter run where `archer train` starts and reserve nothing")
    console.print("not counted: the memory of replay, of environments, and what allocators lose to fragments")


def _memory_table(columns: dict[str, Memory], plan: Plan) -> Table:
    device = "GPU" if any(node.gpu for node in plan.nodes) else "process"
    table = Table(f"GiB per {device}", box=None, title_justify="left", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right")
    for row in dict.fromkeys(name for memory in columns.values() for name in memory.device):
        cells = [memory.device.get(row) for memory in columns.values()]
        table.add_row(row, *("" if amount is None else f"{amount / GIB:.2f}" for amount in cells))
    table.add_row("total", *(f"{memory.total / GIB:.2f}" for memory in columns.values()), style="bold")
    if any(memory.host for memory in columns.values()):
        table.add_row(
            "on the host", *(f"{memory.host / GIB:.2f}" if memory.host else "" for memory in columns.values())
        )
    return table


def _without_gpu(places: Sequence[Place]) -> str:
    kinds = Counter(place.kind for place in places if not place.gpus)
    return ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
