"""Table 2 of `bench/replay.py`: what a sample costs inside a shard as it grows, and the memory of its rows.

Runs in a process of its own, whose memory holds nothing else. Nothing travels here: what is timed is the draw, and for
the uniform sample the copy of its rows.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow as pa

from bench.replay_contenders import record_batch
from bench.replay_workload import APPENDED, DRAWN, TURNS, template
from buffer.config import ReplayConfig
from buffer.metrics import ShardMetrics
from buffer.sampling.request import RowFilter, Sampler
from buffer.shard.shard import Shard

TIMEOUT_S = 600.0
COLUMNS = {
    "turns": "stored turns",
    "uniform_ms": "uniform sample of 256, ms",
    "prioritised_ms": "prioritised draw of 256, ms",
    "update_ms": "256 priorities updated, ms",
    "bytes_per_turn": "bytes a turn",
    "rss_ratio": "resident / bytes counted",
}


def in_child(sizes: Sequence[int], repeats: int, seed: int) -> list[dict[str, Any]]:
    """`measure` in a fresh process. Raises RuntimeError where it gives nothing."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, list(sizes), repeats, seed))
    process.start()
    theirs.close()
    try:
        text = ours.recv() if ours.poll(TIMEOUT_S) else ""
    except EOFError:
        text = ""
    if not text:
        process.kill()
    process.join(TIMEOUT_S)
    if not text:
        raise RuntimeError(f"the process that measures a shard gave no figures (exit status {process.exitcode})")
    return list(json.loads(text))


def _child(connection: Any, sizes: list[int], repeats: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        connection.send(json.dumps(measure(sizes, repeats, seed, Path(folder))))


def measure(sizes: Sequence[int], repeats: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """One row per size, rising: medians in milliseconds over `repeats` draws."""
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=2 * max(sizes))
    shard = Shard(0, config, folder, ShardMetrics())
    batch = record_batch(template(seed))
    # What the first append of a process loads, such as Arrow's writer and LZ4, is no memory of rows: 1 MB.
    Shard(1, config, folder / "first", ShardMetrics()).append(batch)
    empty = _resident()
    rows, episodes = [], 0
    for size in sizes:
        while episodes * TURNS < size:
            names = [f"episode-{number:09d}" for number in range(episodes, episodes + APPENDED)]
            shard.append(batch.set_column(0, batch.schema.field(0), pa.array(names)))
            episodes += APPENDED
        counts = shard.counts()
        grown = _resident() - empty
        rows.append(
            {
                "turns": counts.turns,
                **_draws(shard, repeats, seed),
                "bytes_per_turn": counts.bytes / counts.turns,
                "rss_ratio": grown / counts.bytes,
            }
        )
    return rows


def _draws(shard: Shard, repeats: int, seed: int) -> dict[str, float]:
    number = DRAWN["turn"]
    rng = np.random.default_rng(seed)
    drawn: list[Any] = []

    def draw(sampler: Sampler) -> Any:
        return shard.draw(number, unit="turn", only=RowFilter(), seed=int(rng.integers(2**62)), sampler=sampler)

    def uniform() -> None:
        _, batches = draw("uniform")
        for _ in batches:
            pass

    def prioritised() -> None:
        drawn.append(draw("prioritised")[0])

    def update() -> None:
        draws = drawn.pop()
        shard.update_priorities(draws.seqs, draws.turns, priorities)

    priorities = rng.random(number)
    return {
        "uniform_ms": _milliseconds(uniform, repeats),
        # Each update has a draw of its own.
        "prioritised_ms": _milliseconds(prioritised, repeats),
        "update_ms": _milliseconds(update, repeats),
    }


def _milliseconds(call: Callable[[], None], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) * 1e3


def _resident() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)
