"""Measure Reverb for `bench/replay.py`, with a Python that has it: `python bench/replay_reverb.py WORK`; prints JSON.

Server and client are separate processes, as in our replay. An item is a whole episode as one step of a trajectory, so
nothing is padded and the server's chunks are as large as possible. Reverb's writers take one item at a time.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import portpicker
import reverb
import tensorflow as tf

from bench.replay_workload import (
    APPENDED,
    DRAWN,
    PREFETCH,
    Columns,
    Contender,
    Unit,
    Work,
    answer,
    fill,
    sampled,
    template,
)

TABLE = "episodes"
START_TIMEOUT_S = 60.0


def serve(port: int, size: int, ready: Any, ended: Any) -> None:
    """Run a server until `ended` is set."""
    signature = {name: tf.TensorSpec(column[0].shape, column.dtype) for name, column in template(0).items()}
    table = reverb.Table(
        name=TABLE,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=size,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={name: tf.TensorSpec((1, *spec.shape), spec.dtype) for name, spec in signature.items()},
    )
    server = reverb.Server([table], port=port)
    ready.set()
    ended.wait()
    server.stop()


class Reverb(Contender):
    """Appends with a trajectory writer, samples with `Client.sample`, and streams with `TrajectoryDataset`."""

    def __init__(self, port: int) -> None:
        self._address = f"localhost:{port}"
        self._client = reverb.Client(self._address)
        self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
        self._names = list(template(0))

    def prepare(self, columns: Columns) -> Any:
        """Return a dict of arrays for each episode."""
        return [{name: column[row] for name, column in columns.items()} for row in range(APPENDED)]

    def append(self, batch: Any) -> None:
        """Append every item, and return when the server has confirmed all of them."""
        for episode in batch:
            self._writer.append(episode)
            history = self._writer.history
            self._writer.create_item(TABLE, 1.0, {name: history[name][-1:] for name in episode})
        self._writer.flush()

    def sample(self, unit: Unit) -> Any:
        """Return a list of arrays for each draw."""
        return list(self._client.sample(TABLE, DRAWN[unit], emit_timesteps=False))

    def stream(self, unit: Unit) -> Iterator[Any]:
        """Yield batches of numpy arrays, which the workers of Reverb's sampler fetch ahead."""
        data = reverb.TrajectoryDataset.from_table_signature(
            self._address, TABLE, max_in_flight_samples_per_worker=DRAWN[unit] * PREFETCH[unit]
        )
        return iter(data.batch(DRAWN[unit]).as_numpy_iterator())

    def tokens(self, sample: Any) -> Iterable[np.ndarray]:
        """Return the tokens of each draw of a call, or of a batch of the stream."""
        if not isinstance(sample, list):
            return list(sample.data["tokens"][:, 0])
        place = sorted(self._names).index("tokens")  # Reverb orders the arrays of an item by name
        return [draw.data[place][0] for draw in sample]


def main() -> None:
    work = Work.from_json(sys.argv[1])
    context = multiprocessing.get_context("spawn")
    ready, ended = context.Event(), context.Event()
    port = portpicker.pick_unused_port()
    # A daemon process ends with this process, also after an error.
    server = context.Process(target=serve, args=(port, 10 * work.turns, ready, ended), daemon=True)
    server.start()
    if not ready.wait(START_TIMEOUT_S):
        server.kill()
        sys.exit(f"the Reverb server did not start within {START_TIMEOUT_S:g} s")
    contender = Reverb(port)
    row = {"contender": f"Reverb {version('dm-reverb')}", **fill(contender, work), **sampled(contender, work)}
    ended.set()
    server.join(START_TIMEOUT_S)
    answer([row])


if __name__ == "__main__":
    main()
