"""TorchRL's replay buffer for `bench/replay.py`, run by the Python that has it: `python bench/replay_torchrl.py WORK`.

Two rows: the buffer in process, and the same one in a Ray actor, which takes and gives dicts of numpy arrays, as those
cross Ray at least cost (a TensorDict would be pickled). Rows are whole episodes of one length: nothing is padded.
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
    """In process; draws are rows of tensors."""

    def __init__(self, episodes: int) -> None:
        torch.set_num_threads(1)
        self._buffer = ReplayBuffer(storage=LazyTensorStorage(episodes + APPENDED))

    def prepare(self, columns: Columns) -> Any:
        """A TensorDict over the arrays."""
        return TensorDict({name: torch.from_numpy(column) for name, column in columns.items()}, batch_size=APPENDED)

    def append(self, batch: Any) -> None:
        """Copied into the storage."""
        self._buffer.extend(batch)

    def sample(self, unit: Unit) -> Any:
        """A TensorDict of an episode for each draw."""
        return self._buffer.sample(DRAWN[unit])

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
        return list(sample["tokens"].numpy())

    # For the actor.

    def append_columns(self, columns: Columns) -> None:
        """`append` of what a writer sends; what arrives is read-only, and only read."""
        self.append(self.prepare(columns))

    def sample_columns(self, unit: Unit) -> Columns:
        """`sample` as arrays."""
        return {name: value.numpy() for name, value in self.sample(unit).items()}


class TorchRLActor(Contender):
    """The same in an actor; a stream keeps calls under way."""

    def __init__(self, episodes: int) -> None:
        self._actor = ray.remote(num_cpus=1)(TorchRL).remote(episodes)

    def prepare(self, columns: Columns) -> Any:
        """The arrays."""
        return columns

    def append(self, batch: Any) -> None:
        """Waits for the actor."""
        ray.get(self._actor.append_columns.remote(batch), timeout=TIMEOUT_S)

    def sample(self, unit: Unit) -> Any:
        """A dict of arrays, views of Ray's shared memory."""
        return ray.get(self._actor.sample_columns.remote(unit), timeout=TIMEOUT_S)

    def stream(self, unit: Unit) -> Iterator[Any]:
        """`PREFETCH` calls under way."""
        calls = deque(self._actor.sample_columns.remote(unit) for _ in range(PREFETCH[unit]))
        while True:
            ready = calls.popleft()
            calls.append(self._actor.sample_columns.remote(unit))
            yield ray.get(ready, timeout=TIMEOUT_S)

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """One for each draw."""
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
