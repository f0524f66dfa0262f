"""The episode: one row, tokens stored once, turns as offsets into them.

The same table is the live buffer, its log on disk, a checkpoint, an offline data set and what people read.
L is the number of tokens of an episode, T its turns, A the sum of the lengths of its actions.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

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
        ("terminated", pa.bool_()),
        ("truncated", pa.bool_()),
        ("success", pa.bool_()),
        ("messages", MESSAGES_TYPE),
        ("created_at", CREATED_TYPE),
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION},
)

RAGGED_DTYPES: dict[str, np.dtype] = {
    "tokens": np.dtype(np.int32),
    "action_start": np.dtype(np.int32),
    "action_end": np.dtype(np.int32),
    "reward": np.dtype(np.float32),
    "logprobs": np.dtype(np.float32),
    "versions": np.dtype(np.int32),
}
"""The columns that hold numbers per token or per turn."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode as numpy views, fields named as the columns of `EPISODE_SCHEMA`.

    `versions` is -1 where no policy wrote the token (demonstrations), `logprobs` 0.0 there.
    Arrays that come out of the replay are read-only views of shared memory: copy before writing.
    """

    episode_id: str
    tokens: np.ndarray
    """int32[L]"""
    action_start: np.ndarray
    """int32[T], where action t begins in `tokens`."""
    action_end: np.ndarray
    """int32[T], one past the last token of action t."""
    reward: np.ndarray
    """float32[T]"""
    logprobs: np.ndarray
    """float32[A], the behaviour log-probabilities of the action tokens, in order."""
    versions: np.ndarray
    """int32[A], the policy version that wrote each action token."""
    terminated: bool
    truncated: bool
    success: bool | None = None
    env: str = ""
    task_id: str = ""
    seed: int = 0
    worker: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    created_at: datetime = field(default_factory=_now)

    @property
    def turns(self) -> int:
        """T, the number of turns."""
        return len(self.action_start)

    @property
    def ret(self) -> float:
        """The undiscounted return: the sum of the rewards."""
        return float(np.sum(self.reward, dtype=np.float64))

    def state_end(self, turn: int) -> int:
        """Number of tokens of state s_turn, for turn in 0..T; s_T is the whole episode."""
        if not 0 <= turn <= self.turns:
            raise IndexError(f"state {turn} of episode {self.episode_id!r}, which has states 0 to {self.turns}")
        return len(self.tokens) if turn == self.turns else int(self.action_start[turn])


def episodes_to_batch(episodes: Sequence[Episode]) -> pa.RecordBatch:
    """One row per episode, in order, as a RecordBatch of `EPISODE_SCHEMA` (not yet validated)."""
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
    """`(offsets, flat)` of a list column without copying.

    `offsets` [rows + 1] counts elements of `flat`; `flat` holds every value of the parent, so the rows of a
    slice begin at `offsets[0]`, not at 0.
    """
    return column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=True)


def batch_to_episodes(batch: pa.RecordBatch) -> list[Episode]:
    """The rows as `Episode`s whose arrays are views of the batch's memory.

    Columns of `EPISODE_SCHEMA` in any order; where `messages` is absent the episodes have none.
    """
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
    """The rows whose id is not known; of rows with the same id the first."""
    first: dict[str, int] = {}
    for row, name in enumerate(batch.column("episode_id").to_pylist()):
        if name not in known:
            first.setdefault(name, row)
    return list(first.values())


def validate(batch: pa.RecordBatch) -> None:
    """Check types and every rule of the table. Raises SchemaError: what, which episode, what to do."""
    check_columns(batch.schema)
    if batch.num_rows == 0:
        return
    ids = batch.column("episode_id")
    _check_nulls(batch)
    parts = {name: ragged_parts(batch.column(name)) for name in RAGGED_DTYPES}
    sizes = {name: np.diff(offsets) for name, (offsets, _) in parts.items()}
    flat = {name: values[offsets[0] : offsets[-1]] for name, (offsets, values) in parts.items()}
    _check_flags(batch, ids)
    _check_turns(ids, sizes, flat)
    _check_values(ids, sizes, flat)


def check_columns(schema: pa.Schema) -> None:
    """Raises SchemaError unless the columns and the version are those of `EPISODE_SCHEMA`."""
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"batch has episode schema version {version!r}, this replay writes {SCHEMA_VERSION!r}; "
            "build batches with buffer.episodes.schema.episodes_to_batch"
        )
    for column in EPISODE_SCHEMA:
        if column.name not in schema.names:
            raise SchemaError(f"column {column.name!r} ({column.type}) is missing; add it")
        found = schema.field(column.name).type
        if found != column.type:
            raise SchemaError(f"column {column.name!r} is {found}, not {column.type}; cast it")
    extra = [name for name in schema.names if name not in EPISODE_SCHEMA.names]
    if extra or schema.names != EPISODE_SCHEMA.names:
        raise SchemaError(
            f"columns are {schema.names}, not {EPISODE_SCHEMA.names} in this order; "
            "select exactly the columns of EPISODE_SCHEMA"
        )


def _refuse(ids: pa.Array, row: int, what: str) -> NoReturn:
    raise SchemaError(f"episode {ids[int(row)].as_py()!r} (row {int(row)} of the batch): {what}")


def _check_nulls(batch: pa.RecordBatch) -> None:
    ids = batch.column("episode_id")
    for name in EPISODE_SCHEMA.names:
        column = batch.column(name)
        if name != "success" and column.null_count:
            _refuse(ids, int(np.argmax(column.is_null())), f"{name} is null; only success may be")
        if name in RAGGED_DTYPES and column.values.null_count:
            raise SchemaError(f"column {name!r} holds nulls inside its lists; give numbers only")
    empty = np.asarray(ids.to_numpy(zero_copy_only=False) == "")
    if empty.any():
        _refuse(ids, int(np.argmax(empty)), "episode_id is empty; give each episode a unique id")


def _check_flags(batch: pa.RecordBatch, ids: pa.Array) -> None:
    terminated = batch.column("terminated").to_numpy(zero_copy_only=False).astype(bool)
    truncated = batch.column("truncated").to_numpy(zero_copy_only=False).astype(bool)
    both = terminated & truncated
    if both.any():
        _refuse(
            ids,
            int(np.argmax(both)),
            "both terminated and truncated are set; an end of the task is terminated, a time limit truncated",
        )


def _check_turns(ids: pa.Array, sizes: dict[str, np.ndarray], flat: dict[str, np.ndarray]) -> None:
    turns = sizes["action_start"]
    if (turns == 0).any():
        _refuse(ids, int(np.argmax(turns == 0)), "has no turns; drop episodes without an action")
    for name in ("action_end", "reward"):
        wrong = sizes[name] != turns
        if wrong.any():
            row = int(np.argmax(wrong))
            _refuse(ids, row, f"{turns[row]} action_start but {sizes[name][row]} {name}; give one per turn")
    row_of_turn = np.repeat(np.arange(len(turns)), turns)
    starts, ends = flat["action_start"], flat["action_end"]
    earliest = np.empty_like(starts)
    earliest[1:] = ends[:-1]
    first_turns = np.cumsum(turns) - turns
    # The policy needs a token to condition on, so the first state holds at least one.
    earliest[first_turns] = 1
    for wrong, what in (
        (starts < earliest, "begins before the end of what precedes it (at least one token of state)"),
        (ends <= starts, "is empty or ends before it begins"),
        (ends > sizes["tokens"][row_of_turn], "ends beyond the episode's tokens"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            row = int(row_of_turn[at])
            _refuse(
                ids,
                row,
                f"action {at - first_turns[row]} [{starts[at]}, {ends[at]}) of {sizes['tokens'][row]} tokens "
                f"{what}; offsets must rise",
            )
    lengths = np.add.reduceat((ends - starts).astype(np.int64), first_turns)
    for name in ("logprobs", "versions"):
        wrong = sizes[name] != lengths
        if wrong.any():
            row = int(np.argmax(wrong))
            _refuse(
                ids,
                row,
                f"{lengths[row]} action tokens but {sizes[name][row]} {name}; give one per action token",
            )


def _check_values(ids: pa.Array, sizes: dict[str, np.ndarray], flat: dict[str, np.ndarray]) -> None:
    for name, wrong, what in (
        ("reward", ~np.isfinite(flat["reward"]), "a finite number"),
        ("logprobs", ~np.isfinite(flat["logprobs"]), "a finite number (0.0 where no policy wrote the token)"),
        ("versions", flat["versions"] < -1, "a policy version, or -1 where no policy wrote the token"),
        ("tokens", flat["tokens"] < 0, "a token id"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            ends = np.cumsum(sizes[name])
            row = int(np.searchsorted(ends, at, side="right"))
            place = at - int(ends[row] - sizes[name][row])
            _refuse(ids, row, f"{name}[{place}] is {flat[name][at]}; it must be {what}")
