"""A soak of the replay: a writer and two readers while a shard is killed with -9 again and again.

A writer appends episodes of ten turns until a given number of turns is acknowledged, so slowly that the kills happen
during its work. Meanwhile two readers sample, one turns and one whole episodes by priority, set priorities, and check
that each episode has the contents that follow from its id. At the end the program checks that the shards hold every
acknowledged episode once, and no other, and that turns are drawn uniformly (chi-square over cells of turns).

Episodes are small, so that the run covers many episodes rather than many bytes.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import local_cluster, parser, print_table, report, say  # isort: skip - sets the threads first

import os
import signal

import numpy as np
import pyarrow as pa
import ray

from buffer.client.ray_client import ReplayClient
from buffer.config import ReplayConfig
from buffer.episodes.schema import EPISODE_SCHEMA, Episode, episodes_to_batch
from buffer.errors import ReplayError
from buffer.sampling.request import SampleRequest
from buffer.sampling.sample import Sample
from buffer.service import ReplayService

TURNS, PER_APPEND = 10, 64
STATE_TOKENS, ACTION_TOKENS = 6, 3
CELLS = 1000
DRAWS_PER_CELL = 100
FIRST_EPISODES = 256
"""Appended before the readers begin."""


@dataclass
class Soaked:
    """Results of a soak."""

    turns: int
    """Acknowledged turns; `episodes` likewise."""
    episodes: int
    seconds: float
    kills: int
    samples: int
    """Samples of both readers."""
    wrong: int
    """Sampled episodes whose contents do not follow from their id."""
    missing: int
    """Episodes acknowledged and not held."""
    repeated: int
    """Episodes held more than once."""
    unknown: int
    """Episodes held and never acknowledged."""
    chi_square: float
    """(statistic - degrees of freedom) / sqrt(2 * degrees of freedom): about normal(0, 1) if draws are uniform."""
    errors: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, duplicated, mixed up or drawn unevenly."""
        bad = self.wrong + self.missing + self.repeated + self.unknown + len(self.errors)
        return bad == 0 and abs(self.chi_square) < 5


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--turns", type=int, help="turns to acknowledge; 1,000,000, and 50,000 with --quick")
    options.add_argument("--seconds", type=float, help="the writer's pace: how long it takes; 150, and 30 with --quick")
    options.add_argument("--shards", type=int, default=4)
    options.add_argument("--kill-every", type=float, help="seconds between kills; 20, and 6 with --quick")
    arguments = options.parse_args()
    quick = arguments.quick
    with local_cluster(4), tempfile.TemporaryDirectory(prefix="soak") as folder:
        result = soak(
            Path(folder) / "replay",
            turns=arguments.turns or (50_000 if quick else 1_000_000),
            seconds=arguments.seconds or (30 if quick else 150),
            shards=arguments.shards,
            kill_every=arguments.kill_every or (6 if quick else 20),
            seed=arguments.seed,
        )
    row = asdict(result) | {"sound": result.sound}
    print_table("Soak of the replay", {name: name.replace("_", " ") for name in row if name != "errors"}, [row])
    for error in result.errors:
        say(error)
    say(f"written to {report('replay_soak', arguments, [row])}")
    if not result.sound:
        raise SystemExit("the replay lost, doubled, mixed up or unevenly drew something; see the table")


def soak(directory: Path, *, turns: int, seconds: float, shards: int, kill_every: float, seed: int) -> Soaked:
    """Run the soak on the Ray cluster of this process."""
    config = ReplayConfig(shards=shards, capacity_turns=4 * turns, durability="flush", segment_bytes=4 << 20)
    service = ReplayService.start(config, directory=directory, seed=seed)
    writer = Writer(service.client(), turns=turns, seconds=seconds)
    done = threading.Event()
    readers = [
        Reader(service.client(seed=seed + 1), done, unit="turn"),
        Reader(service.client(seed=seed + 2), done, unit="episode"),
    ]
    begun = time.monotonic()
    try:
        writer.start()
        if not writer.ready.wait(timeout=120):
            raise ReplayError(f"the writer did not append {FIRST_EPISODES} episodes within 120 s: {writer.errors}")
        for reader in readers:
            reader.start()
        kills = _kill(service, writer, kill_every, np.random.default_rng(seed))
        writer.join()
        took = time.monotonic() - begun
        done.set()
        for reader in readers:
            reader.join()
        held = Counter(episode.episode_id for episode in service.client().sweep())
        acknowledged = {_name(index) for index in range(writer.acknowledged)}
        return Soaked(
            turns=TURNS * writer.acknowledged,
            episodes=writer.acknowledged,
            seconds=took,
            kills=kills,
            samples=sum(reader.samples for reader in readers),
            wrong=sum(reader.wrong for reader in readers),
            missing=len(acknowledged - set(held)),
            repeated=sum(count > 1 for count in held.values()),
            unknown=len(set(held) - acknowledged),
            chi_square=_unevenness(service.client(seed=seed + 3), writer.acknowledged),
            errors=writer.errors + [error for reader in readers for error in reader.errors],
        )
    finally:
        done.set()
        service.stop()


class Writer(threading.Thread):
    """Appends until enough is acknowledged, evenly over `seconds`."""

    def __init__(self, client: ReplayClient, *, turns: int, seconds: float) -> None:
        super().__init__(name="writer")
        self.client = client
        self.wanted = -(-turns // TURNS)
        self.pause = seconds * PER_APPEND / self.wanted
        self.acknowledged = 0
        self.ready = threading.Event()
        """Set once the readers may begin."""
        self.errors: list[str] = []

    def run(self) -> None:
        template = episodes_to_batch([_episode(index) for index in range(PER_APPEND)])
        due = time.monotonic()
        try:
            while self.acknowledged < self.wanted:
                count = min(PER_APPEND, self.wanted - self.acknowledged)
                self.client.append(_batch(template, self.acknowledged, count))
                self.acknowledged += count
                if self.acknowledged >= min(FIRST_EPISODES, self.wanted):
                    self.ready.set()
                due += self.pause
                time.sleep(max(0.0, due - time.monotonic()))
        except ReplayError as error:
            self.errors.append(f"writer: {error}")


class Reader(threading.Thread):
    """Samples until `done` is set, and checks each sample."""

    def __init__(self, client: ReplayClient, done: threading.Event, *, unit: str) -> None:
        super().__init__(name=f"reader-{unit}")
        self.client = client
        self.done = done
        self.unit = unit
        self.samples = self.wrong = 0
        self.errors: list[str] = []

    def run(self) -> None:
        rng = np.random.default_rng(0)
        try:
            while not self.done.is_set():
                if self.unit == "turn":
                    sample = self.client.sample(SampleRequest(256))
                    self.client.update_priorities(sample, rng.random(len(sample)))
                else:
                    sample = self.client.sample(SampleRequest(26, unit="episode", sampler="prioritised"))
                self.samples += 1
                self.wrong += _wrong(sample)
        except ReplayError as error:
            self.errors.append(f"{self.name}: {error}")


def _kill(service: ReplayService, writer: Writer, every: float, rng: np.random.Generator) -> int:
    """Kill a shard every `every` seconds while the writer runs; return the number of kills."""
    kills = 0
    while True:
        writer.join(timeout=every)
        if not writer.is_alive():
            return kills
        shard = int(rng.integers(len(service.shards)))
        pid = ray.get(service.shards[shard].__ray_call__.remote(lambda _: os.getpid()), timeout=60)
        os.kill(pid, signal.SIGKILL)
        kills += 1


def _unevenness(client: ReplayClient, episodes: int) -> float:
    """Return the standardised chi-square of drawn turns, over cells of equally many turns each."""
    draws = DRAWS_PER_CELL * CELLS
    observed = np.zeros(CELLS)
    turns_in = np.bincount(np.arange(TURNS * episodes) % CELLS, minlength=CELLS)
    for _ in range(draws // 1000):
        sample = client.sample(SampleRequest(1000))
        index = np.array([episode.seed for episode in sample.distinct])[sample.rows]
        observed += np.bincount((TURNS * index + sample.turns) % CELLS, minlength=CELLS)
    expected = observed.sum() * turns_in / turns_in.sum()
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float((statistic - (CELLS - 1)) / np.sqrt(2 * (CELLS - 1)))


def _name(index: int) -> str:
    return f"episode-{index:09d}"


def _episode(index: int) -> Episode:
    starts = np.arange(TURNS) * (STATE_TOKENS + ACTION_TOKENS) + STATE_TOKENS
    actions = TURNS * ACTION_TOKENS
    return Episode(
        episode_id=_name(index),
        tokens=np.full(TURNS * (STATE_TOKENS + ACTION_TOKENS), index % PER_APPEND, np.int32),
        action_start=starts.astype(np.int32),
        action_end=(starts + ACTION_TOKENS).astype(np.int32),
        reward=np.full(TURNS, -1.0, np.float32),
        logprobs=np.full(actions, -0.5, np.float32),
        versions=np.full(actions, index % 7, np.int32),
        terminated=True,
        truncated=False,
        env="soak",
        seed=index,
    )


def _batch(template: pa.RecordBatch, first: int, count: int) -> pa.RecordBatch:
    """Return episodes from `first` on; their contents follow from their number modulo `PER_APPEND`."""
    indices = range(first, first + count)
    changed = {"episode_id": pa.array(map(_name, indices)), "seed": pa.array(indices, pa.int64())}
    kept = template.slice(0, count)
    return pa.RecordBatch.from_arrays(
        [changed.get(name, kept.column(name)) for name in EPISODE_SCHEMA.names], schema=EPISODE_SCHEMA
    )


def _wrong(sample: Sample) -> int:
    """Return the number of episodes whose contents do not follow from their id."""
    return sum(
        episode.episode_id != _name(episode.seed) or not (episode.tokens == episode.seed % PER_APPEND).all()
        for episode in sample.distinct
    )


if __name__ == "__main__":
    main()
