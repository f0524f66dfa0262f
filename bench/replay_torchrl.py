"""Measure TorchRL for `bench/replay.py`, with a Python that has it: `python bench/replay_torchrl.py WORK`; prints JSON.

It prints two rows: the buffer in this process, and the buffer in a Ray actor. The actor receives and returns dicts of
numpy arrays, because Ray transfers them without pickling, unlike a TensorDict. Items are whole episodes of one length,
so nothing is padded.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import ray
import torch
import torchrl
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer

from bench.replay_workload import (
    APPENDED,
    DRAWN,
    PREFETCH,
    TURNS,
    Columns,
    Contender,
    Unit,
    Work,
    answer,
    fill,
    sampled,
)

TIMEOUT_S = 120.0


class TorchRL(Contender):
    """The buffer in this process; a draw is a row of tensors."""

    def __init__(self, episodes: int) -> None:
        torch.set_num_threads(1)
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(episodes + APPENDED))

    def prepare(self, columns: Columns) -> Any:
        """Return a TensorDict over the arrays."""
        return TensorDict({name: torch.from_numpy(column) for name, column in columns.items()}, batch_size=APPENDED)

    def append(self, batch: Any) -> None:
        """Copy the batch into the storage."""
        self._buffer.extend(batch)

    def sample(self, unit: Unit) -> Any:
        """Return a TensorDict with an episode for each draw."""
        return self._buffer.sample(DRAWN[unit])

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """Return the tokens of each draw."""
        return list(sample["tokens"].numpy())

    # The methods that `TorchRLActor` calls remotely.

    def append_columns(self, columns: Columns) -> None:
        """Append arrays that a writer sent; Ray's memory is read-only, which suffices here."""
        self.append(self.prepare(columns))

    def sample_columns(self, unit: Unit) -> Columns:
        """Return the result of `sample` as arrays."""
        return {name: value.numpy() for name, value in self.sample(unit).items()}


class TorchRLActor(Contender):
    """The buffer in a Ray actor; a stream keeps calls in flight."""

    def __init__(self, episodes: int) -> None:
        self._actor = ray.remote(num_cpus=1)(TorchRL).remote(episodes)

    def prepare(self, columns: Columns) -> Any:
        """Return the arrays unchanged."""
        return columns

    def append(self, batch: Any) -> None:
        """Send the arrays, and return when the actor has stored them."""
        ray.get(self._actor.append_columns.remote(batch), timeout=TIMEOUT_S)

    def sample(self, unit: Unit) -> Any:
        """Return a dict of arrays, views of Ray's shared memory."""
        return ray.get(self._actor.sample_columns.remote(unit), timeout=TIMEOUT_S)

    def stream(self, unit: Unit) -> Iterator[Any]:
        """Yield samples, with `PREFETCH` calls in flight."""
        calls = deque(self._actor.sample_columns.remote(unit) for _ in range(PREFETCH[unit]))
        while True:
            ready = calls.popleft()
            calls.append(self._actor.sample_columns.remote(unit))
            yield ray.get(ready, timeout=TIMEOUT_S)

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """Return the tokens of each draw."""
        return list(sample["tokens"])


def main() -> None:
    work = Work.from_json(sys.argv[1])
    episodes = work.turns // TURNS
    name = f"TorchRL {torchrl.__version__}"
    local = TorchRL(episodes)
    rows = [{"contender": f"{name}, in process", **fill(local, work), **sampled(local, work)}]
    del local
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=512 << 20, log_to_driver=False)
    try:
        actor = TorchRLActor(episodes)
        rows.append({"contender": f"{name}, Ray actor", **fill(actor, work), **sampled(actor, work)})
    finally:
        ray.shutdown()
    answer(rows)


if __name__ == "__main__":
    main()
