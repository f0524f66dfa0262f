"""The work of `bench/replay.py` and its clock, the same for every contender.

Runs in the environments of other packages too, so it imports numpy alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, Self

import numpy as np

Columns = dict[str, np.ndarray]
Unit = Literal["episode", "turn"]

TURNS, OBSERVATION, ACTION = 10, 200, 16
LENGTH = TURNS * (OBSERVATION + ACTION)
VOCABULARY = 32_000
APPENDED = 64
"""Episodes of an append."""
APPENDS = 15
"""Timed together, one after the other, all prepared beforehand."""
DRAWN: dict[Unit, int] = {"episode": 26, "turn": 256}
"""Of a sample: whole episodes of about as many turns, or single turns."""
PREFETCH: dict[Unit, int] = {"episode": 16, "turn": 8}
"""Samples that a stream asks for ahead of need."""
_CHECKED = 5
"""Samples that are looked at before any is timed."""
FIGURES = ("append", "append_stream", "episode_call", "episode_stream", "turn_call", "turn_stream")


@dataclass(frozen=True)
class Work:
    """How much is held, and how long is measured."""

    turns: int
    """Held, all appended before the first sample."""
    seconds: float
    """Each figure is taken over so long, `repeats` times."""
    repeats: int
    seed: int

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


class Contender(ABC):
    """A place to put episodes and to draw them from. `DRAWN` draws of a unit are one sample."""

    keeps = True
    """Whether it gives back what it was given, and not as many bytes of anything."""

    @abstractmethod
    def prepare(self, columns: Columns) -> Any:
        """A batch as those have it who append it; not timed."""

    @abstractmethod
    def append(self, batch: Any) -> None:
        """Returns once the batch can be drawn from."""

    def append_all(self, batches: list[Any]) -> bool:
        """Likewise of several, the next ones sent before the first can be drawn; False where there is no such thing."""
        return False

    @abstractmethod
    def sample(self, unit: Unit) -> Any:
        """Draws with replacement, as this contender hands them back."""

    def stream(self, unit: Unit) -> Iterator[Any] | None:
        """Samples ahead of need; None where a contender has no such thing."""
        return None

    @abstractmethod
    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """int32[L] of the episode of each draw, or once where it was drawn again."""


def template(seed: int) -> Columns:
    """The columns of `APPENDED` episodes, each [episodes, values]."""
    rng = np.random.default_rng(seed)
    starts = np.arange(TURNS) * (OBSERVATION + ACTION) + OBSERVATION
    written = (APPENDED, TURNS * ACTION)
    return {
        "tokens": rng.integers(0, VOCABULARY, (APPENDED, LENGTH), dtype=np.int32),
        "action_start": np.tile(starts, (APPENDED, 1)).astype(np.int32),
        "action_end": np.tile(starts + ACTION, (APPENDED, 1)).astype(np.int32),
        "reward": rng.random((APPENDED, TURNS), dtype=np.float32),
        "logprobs": -rng.random(written, dtype=np.float32),
        "versions": rng.integers(0, 100, written, dtype=np.int32),
    }


EPISODE_BYTES = sum(column[0].nbytes for column in template(0).values())
"""Of an episode's numbers, about 1,000 a turn: what a sample is counted by, whatever else a contender sends."""


def numbered(columns: Columns, first: int) -> Columns:
    """The same episodes under other numbers: the first token of each is its number from `first` on."""
    tokens = columns["tokens"].copy()
    tokens[:, 0] = np.arange(first, first + APPENDED)
    return {**columns, "tokens": tokens}


def batches(work: Work) -> Iterator[Columns]:
    """Whole batches until at least `work.turns` are there."""
    columns = template(work.seed)
    for first in range(0, -(-work.turns // TURNS), APPENDED):
        yield numbered(columns, first)


def fill(contender: Contender, work: Work) -> dict[str, float | None]:
    """Append everything; turns per second, the median over runs of `APPENDS`. Needs more than one batch.

    By call and streamed in turn, where a contender has both.
    """
    calls: list[float] = []
    streamed: list[float] = []
    waiting = batches(work)
    contender.append(contender.prepare(next(waiting)))  # which opens connections
    while prepared := [contender.prepare(columns) for columns in islice(waiting, APPENDS)]:
        begin = time.perf_counter()
        at_once = len(streamed) < len(calls) and contender.append_all(prepared)
        if not at_once:
            for batch in prepared:
                contender.append(batch)
        (streamed if at_once else calls).append(len(prepared) * APPENDED * TURNS / (time.perf_counter() - begin))
    return {"append": statistics.median(calls), "append_stream": statistics.median(streamed) if streamed else None}


def sampled(contender: Contender, work: Work) -> dict[str, float | None]:
    """Whole episodes in turns per second, single turns in MB per second of the distinct episodes received."""
    found: dict[str, float | None] = {}
    for unit in DRAWN:
        distinct = checked(contender, (contender.sample(unit) for _ in range(_CHECKED)), work.seed)
        worth = distinct * EPISODE_BYTES / 1e6 if unit == "turn" else DRAWN[unit] * TURNS
        calls = [rate(lambda unit=unit: contender.sample(unit), work.seconds) for _ in range(work.repeats)]  # type: ignore[misc]
        found[f"{unit}_call"] = worth * statistics.median(calls)
        stream = contender.stream(unit)
        found[f"{unit}_stream"] = None
        if stream is None:
            continue
        # With those that were fetched while nobody waited.
        checked(contender, islice(stream, 2 * PREFETCH[unit]), work.seed)
        streamed = [rate(lambda stream=stream: next(stream), work.seconds) for _ in range(work.repeats)]  # type: ignore[misc]
        found[f"{unit}_stream"] = worth * statistics.median(streamed)
        getattr(stream, "close", lambda: None)()
    return found


def checked(contender: Contender, samples: Iterable[Any], seed: int) -> float:
    """Distinct episodes of a sample on average. Raises ValueError where one is not as it was appended."""
    appended = template(seed)["tokens"]
    distinct = []
    for sample in samples:
        rows = list(contender.tokens(sample))
        for row in rows:
            if row.shape != (LENGTH,):
                raise ValueError(f"an episode came back with tokens of shape {row.shape}, not ({LENGTH},)")
            if contender.keeps and not np.array_equal(row[1:], appended[int(row[0]) % APPENDED, 1:]):
                raise ValueError(f"episode {int(row[0])} came back with other tokens than it was appended with")
        distinct.append(len({int(row[0]) for row in rows}))
    return statistics.mean(distinct)


def rate(call: Callable[[], Any], seconds: float) -> float:
    """Calls per second."""
    call()
    calls, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        call()
        calls += 1
    return calls / passed


def answer(rows: list[dict[str, Any]]) -> None:
    """What a program in another environment gives `bench/replay.py`: its last line."""
    sys.stdout.flush()
    print(json.dumps(rows), flush=True)
