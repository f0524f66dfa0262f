"""Demonstrations as a source of samples: an Arrow file of episodes, read whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from buffer.episodes.schema import Episode, batch_to_episodes, episodes_to_batch
from buffer.sampling.request import SampleRequest
from learner.errors import LearnerError


@dataclass(frozen=True)
class Draw:
    """What `DemonstrationSet.sample` gives: an episode and a turn for each draw; turn -1 stands for all turns."""

    episodes: list[Episode]
    turns: np.ndarray


@dataclass(frozen=True)
class Size:
    """How many demonstrations there are."""

    episodes: int
    turns: int


class DemonstrationSet:
    """Episodes from a file that `write_demonstrations` wrote, drawn uniformly with replacement."""

    def __init__(self, path: Path, seed: int) -> None:
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise LearnerError(
                f"no demonstrations to clone at {path} ({error}); set demonstrations.episodes, or "
                "learner.clone.steps=0 to start from the model as it is"
            ) from error
        self._episodes = [episode for batch in batches for episode in batch_to_episodes(batch)]
        self._generator = np.random.default_rng(seed)

    def stats(self) -> Size:
        return Size(len(self._episodes), sum(episode.turns for episode in self._episodes))

    def sample(self, request: SampleRequest, *, timeout_s: float | None = None) -> Draw:
        """Draw uniformly with replacement. The view and its version apply to replay only."""
        n = request.n
        if request.best is not None or request.sampler != "uniform":
            raise LearnerError(
                f"demonstrations are cloned as they are: best={request.best}, sampler={request.sampler} are for what "
                "replay holds"
            )
        if request.unit == "episode":
            chosen = self._generator.integers(len(self._episodes), size=n)
            return Draw([self._episodes[i] for i in chosen], np.full(n, -1, dtype=np.int32))
        lengths = np.array([episode.turns for episode in self._episodes])
        chosen = self._generator.choice(len(lengths), size=n, p=lengths / lengths.sum())
        turns = (self._generator.random(n) * lengths[chosen]).astype(np.int32)
        return Draw([self._episodes[i] for i in chosen], turns)

    def sweep(
        self,
        *,
        view: Literal["critic", "actor"] = "critic",
        min_version: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Episode]:
        """All demonstrations. The arguments matter to replay only."""
        return list(self._episodes)


def write_demonstrations(episodes: Sequence[Episode], path: Path) -> None:
    """Write `episodes` as one Arrow IPC file in the replay schema, whole or not at all."""
    batch = episodes_to_batch(episodes)
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    partial.rename(path)
