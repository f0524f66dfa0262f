"""Turns per second into and out of the replay, against other ways to keep and draw episodes.

All contenders do the same work in one run: episodes of 10 turns, 200 observation and 16 action tokens a turn, with
log-probabilities and versions; appends of 64 episodes; samples of 26 whole episodes or of 256 single turns with what
came before them, drawn with replacement. As every episode is equally long, a single turn is drawn by drawing its
episode, and nobody pads. Sampled single turns are counted by the bytes of the distinct episodes that came, their
numbers alone (`EPISODE_BYTES`), whatever else a contender sent along. Streamed means calls ahead of need: 16 samples
of whole episodes or 8 of turns.

What each returns, to another process than the one that holds the rows unless stated otherwise:

- ours: packed rows, decoded into `Episode`s of numpy views. A table of their own has the same samples left packed,
  as they are until `Sample.episodes` is read.
- Ray actor, lists: the authors' way, each turn a dict of Python lists. A learner must still convert the lists to
  arrays, which is not counted.
- Ray actor, arrays: the same list with a dict of numpy arrays for each episode, views of Ray's shared memory.
- TorchRL: tensors in the same process, or a dict of arrays out of a Ray actor.
- Reverb: arrays; a call is `Client.sample`, streamed is its `TrajectoryDataset`, in batches.
- Arrow: rows taken from a table in the same process, decoded into the same `Episode`s. No service, nothing travels.
- one copy: as many bytes copied in memory, of 256 episodes where single turns are drawn. No draw, nothing travels.

Two tables have what a draw costs by the number of turns held: in the shard, and for a client of it. The client and each
shard are processes of their own: on fewer cores than those, more shards cannot be faster.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import local_cluster, parser, print_table, report, say, two_nodes  # isort: skip - sets the threads first

from bench import replay_shard
from bench.replay_contenders import Arrays, ArrowTable, Lists, Memory, Ours
from bench.replay_foreign import FOREIGN, add_arguments, rows_of
from bench.replay_workload import (
    APPENDED,
    DRAWN,
    EPISODE_BYTES,
    FIGURES,
    TURNS,
    Contender,
    Work,
    batches,
    fill,
    rate,
    sampled,
)
from buffer.config import Durability, ReplayConfig
from buffer.service import ReplayService

FULL = Work(turns=100_000, seconds=1.0, repeats=3, seed=0)
QUICK = Work(turns=20_000, seconds=0.4, repeats=1, seed=0)
OURS: tuple[tuple[int, Durability], ...] = tuple(
    (shards, durability) for durability in ("memory", "flush") for shards in (1, 2, 4)
)
LEAST = 2 * APPENDED * TURNS
SIZES = (10_000, 100_000, 1_000_000)
PACKED = tuple(f"packed_{figure}" for figure in FIGURES[2:])
UNITS = {"append": "append, turns/s", "append_stream": "append, streamed, turns/s"} | {
    f"{unit}_{how}": f"{what}, {how}{'' if how == 'call' else 'ed'}, {measure}"
    for unit, what, measure in (("episode", "episodes", "turns/s"), ("turn", "turns", "MB/s"))
    for how in ("call", "stream")
}
COLUMNS = {"contender": "contender", **UNITS}
PACKED_COLUMNS = {"contender": "contender", **{f"packed_{key}": UNITS[key] for key in FIGURES[2:]}}
RATIOS = {"contender": "contender", **{f"ratio_{key}": UNITS[key].rpartition(",")[0] for key in FIGURES}}
SERVED = {"turns": "stored turns", "episode_ms": "26 episodes, ms", "turn_ms": "256 turns, ms"}
NOTES = {"contender": "contender", "note": "why it has no figures"}


def main() -> None:
    arguments = _arguments()
    base = QUICK if arguments.quick else FULL
    turns, repeats = max(arguments.turns or base.turns, LEAST), arguments.repeats or base.repeats
    work = Work(turns, base.seconds, repeats, arguments.seed)
    sizes = [size for size in SIZES if size <= arguments.most_turns] or [arguments.most_turns]
    shard = replay_shard.in_child(sizes, 50 if arguments.quick else 200, arguments.seed)
    rows = foreign_rows(work, arguments)
    with tempfile.TemporaryDirectory() as folder:
        with local_cluster(num_cpus=4):
            ours, local = our_rows(work, arguments, Path(folder)), local_rows(work)
            served = served_rows(sizes, work, Path(folder))
        rows = [*ours, *replicated_rows(work, Path(folder)), *local, *rows]
    rows = compared(rows)
    figures = [row for row in rows if not row["note"]]
    print_table(f"Into and out of the replay, {work.turns:,} turns held", COLUMNS, figures)
    packed = [row for row in figures if row[PACKED[0]] is not None]
    print_table("Ours, samples left packed until somebody reads them", PACKED_COLUMNS, packed)
    print_table("Ours (1 shard, memory, decoded) / contender", RATIOS, figures)
    if len(figures) < len(rows):
        print_table("Left out", NOTES, [row for row in rows if row["note"]])
    print_table("In one shard", replay_shard.COLUMNS, shard)
    print_table("Through one shard as it grows, decoded", SERVED, served)
    sizes_said = {"episode_bytes": EPISODE_BYTES, "turns_of_an_episode": TURNS, "draws": DRAWN}
    tables: dict[str, Any] = {"shard": shard, "served": served, "held_turns": work.turns}
    say(f"written to {report('replay', arguments, rows, **tables, **sizes_said)}")


def our_rows(work: Work, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One for each number of shards and durability; `packed_*` are the samples left undecoded."""
    return [
        our_row(f"{shards} shard{'s' if shards > 1 else ''}, {durability}", work, folder, shards, durability)
        for shards, durability in OURS
        if shards <= arguments.most_shards
    ]


def replicated_rows(work: Work, folder: Path) -> list[dict[str, Any]]:
    """The same shard without a replica and with one, on a cluster of two nodes that are both this machine."""
    with two_nodes(num_cpus=2):
        return [
            our_row(f"1 shard, flush, {name}", work, folder, 1, "flush", replication=copies, local_dir=disk)
            for name, copies, disk in (("of two nodes", 1, None), ("replicated", 2, str(folder / "disk")))
        ]


def our_row(
    name: str, work: Work, folder: Path, shards: int, durability: Durability, **settings: Any
) -> dict[str, Any]:
    """A row of a service of its own."""
    capacity = 10 * max(work.turns, 1000)
    config = ReplayConfig(shards=shards, durability=durability, capacity_turns=capacity, **settings)
    service = ReplayService.start(config, directory=folder / name.replace(" ", "-") / "replay", seed=work.seed)
    client = service.client()
    contender = Ours(client)
    row = measured(f"ours, {name}", contender, work)
    contender.decoded = False
    row |= {f"packed_{key}": value for key, value in sampled(contender, work).items()}
    client.close()
    service.stop()
    return row


def served_rows(sizes: list[int], work: Work, folder: Path) -> list[dict[str, Any]]:
    """What a call costs a client as the shard grows, the median of the repeats."""
    config = ReplayConfig(shards=1, durability="memory", capacity_turns=2 * max(sizes))
    service = ReplayService.start(config, directory=folder / "grows", seed=work.seed)
    client = service.client()
    contender = Ours(client)
    waiting = batches(replace(work, turns=max(sizes)))
    rows, held = [], 0
    for size in sizes:
        missing = -(-(size - held) // (APPENDED * TURNS))
        client.append_all(contender.prepare(columns) for columns in islice(waiting, missing))
        held += missing * APPENDED * TURNS
        row: dict[str, Any] = {"turns": held}
        for unit in DRAWN:
            rates = [rate(lambda unit=unit: contender.sample(unit), work.seconds) for _ in range(work.repeats)]  # type: ignore[misc]
            row[f"{unit}_ms"] = 1000 / statistics.median(rates)
        rows.append(row)
    client.close()
    service.stop()
    return rows


def local_rows(work: Work) -> list[dict[str, Any]]:
    """Those that need nothing but what we have."""
    rows = []
    actors: list[tuple[str, Callable[[int], Lists]]] = [("Ray actor, lists", Lists), ("Ray actor, arrays", Arrays)]
    for name, make in actors:
        contender = make(work.seed)
        rows.append(measured(name, contender, work))
        contender.close()
    rows.append(measured("Arrow, in process", ArrowTable(work.seed), work))
    rows.append(measured("one copy, in process", Memory(work.turns, work.seed), work))
    return rows


def foreign_rows(work: Work, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Those in environments of their own; before our cluster starts, which would share the cores with them."""
    rows: list[dict[str, Any]] = []
    for foreign in FOREIGN:
        if arguments.quick and foreign.package == "reverb" and arguments.reverb_python is None:
            rows.append({"contender": foreign.title, "note": "left out by --quick; give --reverb-python"})
            continue
        rows.extend(rows_of(foreign, work, arguments))
        say(f"{foreign.title}: {rows[-1].get('note') or 'measured'}")
    return rows


def measured(name: str, contender: Contender, work: Work) -> dict[str, Any]:
    """A row of the first table."""
    row = {"contender": name, **fill(contender, work), **sampled(contender, work)}
    say(f"{name}: {row['episode_call']:,.0f} turns/s in whole episodes")
    return row


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each figure of the first, ours with one shard in memory, over its own; None where it has none."""
    first = rows[0]
    keys = (*FIGURES, *PACKED, "note")
    return [
        dict.fromkeys(keys) | row | {f"ratio_{key}": first[key] / row[key] if row.get(key) else None for key in FIGURES}
        for row in rows
    ]


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    add_arguments(made)
    made.add_argument("--turns", type=int, help=f"turns held; {FULL.turns:,} by default, {QUICK.turns:,} if quick")
    made.add_argument("--most-turns", type=int, help="turns of the largest shard; 1,000,000 by default")
    made.add_argument("--most-shards", type=int, choices=(1, 2, 4), help="4 by default, 2 if quick")
    made.add_argument("--repeats", type=int, help="repeats, whose medians are shown")
    arguments = made.parse_args()
    arguments.most_turns = arguments.most_turns or (SIZES[1] if arguments.quick else SIZES[2])
    arguments.most_shards = arguments.most_shards or (2 if arguments.quick else 4)
    return arguments


if __name__ == "__main__":
    main()
