"""The table of episodes: one row per episode, tokens stored once, turns as offsets into them.

Memory, log, checkpoints, exports and data sets all hold this table. L is the number of tokens of an episode, T its
number of turns, A the sum of the lengths of its actions.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from buffer.errors import SchemaError

SCHEMA_VERSION = b"1"
VERSION_KEY = b"version"
MESSAGES_TYPE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CREATED_TYPE = pa.timestamp("us", tz="UTC")

EPISODE_SCHEMA: pa.Schema = pa.schema(
    [
        ("episode_id", pa.string()),
        ("env", pa.string()),
        ("task_id", pa.string()),
        ("seed", pa.int64()),
        ("worker", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("action_start", pa.list_(pa.int32())),
        ("action_end", pa.list_(pa.int32())),
        ("reward", pa.list_(pa.float32())),
        ("logprobs", pa.list_(pa.float32())),
        ("versions", pa.list_(pa.int32())),
        ("state_start", pa.list_(pa.int32())),
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("success", pa.bool_()),
        ("privileged", pa.string()),
        ("messages", MESSAGES_TYPE),
        ("created_at", CREATED_TYPE),
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION},
)
LATER_COLUMNS: dict[str, Any] = {"privileged": "", "state_start": []}
"""The columns that episodes of earlier versions lack, the latest first, and the value of such an episode."""


def _without(names: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [column for column in EPISODE_SCHEMA if column.name not in names], metadata=EPISODE_SCHEMA.metadata
    )


EARLIER_SCHEMAS: list[pa.Schema] = [_without(list(LATER_COLUMNS)[: n + 1]) for n in range(len(LATER_COLUMNS))]
"""The columns of episodes of earlier versions, the latest first."""

RAGGED_DTYPES: dict[str, np.dtype] = {
    column.name: np.dtype(column.type.value_type.to_pandas_dtype())
    for column in EPISODE_SCHEMA
    if pa.types.is_list(column.type) and column.type != MESSAGES_TYPE
}
"""The columns that hold one number per token or per turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode; the fields are the columns of `EPISODE_SCHEMA`, as numpy arrays where they hold several numbers.

    For a token that no policy wrote (demonstrations) `versions` is -1 and `logprobs` 0.0. Arrays that come from the
    replay are read-only views of shared memory: copy them before writing.
    """

    episode_id: str
    tokens: np.ndarray  # int32[L]
    action_start: np.ndarray  # int32[T], index of the first token of action t
    action_end: np.ndarray  # int32[T], index after the last token of action t
    reward: np.ndarray  # float32[T]
    logprobs: np.ndarray  # float32[A], the behaviour log-probabilities of the action tokens, in order
    versions: np.ndarray  # int32[A], the policy version that wrote each action token
    state_start: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32[T + 1], index of the first token of state s_t, or empty if every state begins at token 0.

    Turns with one start are a segment, in which each state is a prefix of the next. A state that renders the history in
    another form begins a new segment, behind the action before it.
    """
    terminated: bool
    truncated: bool
    success: bool | None = None
    privileged: str = ""
    """What the environment hid from the policy at the beginning, as text (`envs.privileged_text`); "" if nothing."""
    env: str = ""
    task_id: str = ""
    seed: int = 0
    worker: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def turns(self) -> int:
        """T, the number of turns."""
        return len(self.action_start)

    @property
    def ret(self) -> float:
        """Undiscounted return: the sum of the rewards."""
        return float(np.sum(self.reward, dtype=np.float64))

    @property
    def state_starts(self) -> np.ndarray:
        """int32[T + 1], index of the first token of each state."""
        return self.state_start if len(self.state_start) else np.zeros(self.turns + 1, np.int32)

    def state(self, turn: int) -> np.ndarray:
        """Return the tokens of state s_turn, for turn in 0..T."""
        return self.tokens[int(self.state_starts[turn]) : self.state_end(turn)]

    def state_end(self, turn: int) -> int:
        """Return the index after the last token of state s_turn, for turn in 0..T; s_T ends with the episode."""
        if not 0 <= turn <= self.turns:
            raise IndexError(f"state {turn} of episode {self.episode_id!r}, which has states 0 to {self.turns}")
        return len(self.tokens) if turn == self.turns else int(self.action_start[turn])


def episodes_to_batch(episodes: Sequence[Episode]) -> pa.RecordBatch:
    """Return one row per episode, in order, as a RecordBatch of `EPISODE_SCHEMA`, not yet validated."""
    columns: list[pa.Array] = []
    for column in EPISODE_SCHEMA:
        values = [getattr(episode, column.name) for episode in episodes]
        if column.name in RAGGED_DTYPES:
            columns.append(_ragged_array(column.name, values, [e.episode_id for e in episodes]))
        else:
            columns.append(pa.array(values, type=column.type))
    return pa.RecordBatch.from_arrays(columns, schema=EPISODE_SCHEMA)


def _ragged_array(name: str, values: list[np.ndarray], ids: list[str]) -> pa.ListArray:
    dtype = RAGGED_DTYPES[name]
    arrays = [np.asarray(value) for value in values]
    for episode_id, array in zip(ids, arrays, strict=True):
        if array.ndim != 1:
            raise SchemaError(f"episode {episode_id!r}: {name} has shape {array.shape}; give one dimension")
        if array.size and np.issubdtype(dtype, np.integer) and not np.issubdtype(array.dtype, np.integer):
            raise SchemaError(f"episode {episode_id!r}: {name} holds {array.dtype}; give {dtype}")
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    flat = np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.empty(0, dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def ragged_parts(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Return `(offsets, flat)` of a list column without copying.

    `offsets` [rows + 1] are indices into `flat`, which holds every value of the parent: the rows of a slice begin at
    `offsets[0]`, not at 0.
    """
    return column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=True)


def completed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch of one of `EARLIER_SCHEMAS` in `EPISODE_SCHEMA`. Others stay as they are."""
    for earlier in EARLIER_SCHEMAS:
        if batch.schema.names == earlier.names:
            columns = [
                batch.column(column.name) if column.name in earlier.names else later_column(column, batch.num_rows)
                for column in EPISODE_SCHEMA
            ]
            return pa.RecordBatch.from_arrays(columns, schema=EPISODE_SCHEMA.with_metadata(batch.schema.metadata))
    return batch


def later_column(column: pa.Field, rows: int) -> pa.Array:
    """Return one of `LATER_COLUMNS` for `rows` episodes that lack it."""
    return pa.array([LATER_COLUMNS[column.name]] * rows, column.type)


def batch_to_episodes(batch: pa.RecordBatch) -> list[Episode]:
    """Return the rows as episodes whose arrays are views of the batch's memory.

    The columns may be in any order; without a column `messages` the episodes have no messages.
    """
    batch = completed(batch)
    names = batch.schema.names
    plain: dict[str, list] = {
        column.name: batch.column(column.name).to_pylist()
        for column in EPISODE_SCHEMA
        if column.name not in RAGGED_DTYPES and column.name in names
    }
    ragged = {}
    for name in RAGGED_DTYPES:
        offsets, flat = ragged_parts(batch.column(name))
        flat.flags.writeable = False
        ragged[name] = (offsets.tolist(), flat)
    episodes = []
    for row in range(batch.num_rows):
        fields = {name: values[row] for name, values in plain.items()}
        for name, (bounds, flat) in ragged.items():
            fields[name] = flat[bounds[row] : bounds[row + 1]]
        episodes.append(Episode(**fields))
    return episodes


def new_rows(batch: pa.RecordBatch, known: Container[str]) -> list[int]:
    """Return the rows whose id is not known; the first of several rows with one id."""
    first: dict[str, int] = {}
    for row, name in enumerate(batch.column("episode_id").to_pylist()):
        if name not in known:
            first.setdefault(name, row)
    return list(first.values())
