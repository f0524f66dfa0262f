"""Validation of episode batches: types, and the rules between the columns."""

from typing import NoReturn

import numpy as np
import pyarrow as pa

from buffer.episodes.schema import EPISODE_SCHEMA, RAGGED_DTYPES, SCHEMA_VERSION, VERSION_KEY, ragged_parts
from buffer.errors import SchemaError


def validate(batch: pa.RecordBatch) -> None:
    """Raise SchemaError, which names the episode and the remedy, unless the batch follows every rule of the table."""
    _check_columns(batch.schema)
    _check_buffers(batch)
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


def _check_columns(schema: pa.Schema) -> None:
    """Raise SchemaError unless columns and version are those of `EPISODE_SCHEMA`."""
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"batch has episode schema version {version!r}, this replay writes {SCHEMA_VERSION!r}; "
            "build batches with buffer.episodes_to_batch"
        )
    for column in EPISODE_SCHEMA:
        if column.name not in schema.names:
            raise SchemaError(f"column {column.name!r} ({column.type}) is missing; add it")
        found = schema.field(column.name).type
        if found != column.type:
            raise SchemaError(f"column {column.name!r} is {found}, not {column.type}; cast it")
    if schema.names != EPISODE_SCHEMA.names:
        raise SchemaError(
            f"columns are {schema.names}, not {EPISODE_SCHEMA.names} in this order; "
            "select exactly the columns of EPISODE_SCHEMA"
        )


def _check_buffers(batch: pa.RecordBatch) -> None:
    """Raise SchemaError if offsets leave their values, or a text is not UTF-8. Files and clients may send anything, and
    everything below reads the memory that the offsets name."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"the batch is damaged: {str(error).splitlines()[0]}") from error


def _refuse(ids: pa.Array, row: int, what: str) -> NoReturn:
    raise SchemaError(f"episode {ids[row].as_py()!r} (row {row} of the batch): {what}")


def _first(wrong: np.ndarray) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _check_nulls(batch: pa.RecordBatch) -> None:
    ids = batch.column("episode_id")
    for name in EPISODE_SCHEMA.names:
        column = batch.column(name)
        if name != "success" and column.null_count:
            _refuse(ids, int(np.argmax(column.is_null())), f"{name} is null; only success may be")
        if name in RAGGED_DTYPES and column.values.null_count:
            raise SchemaError(f"column {name!r} holds nulls inside its lists; give numbers only")
    if (row := _first(np.asarray(ids.to_numpy(zero_copy_only=False) == ""))) is not None:
        _refuse(ids, row, "episode_id is empty; give each episode a unique id")


def _check_flags(batch: pa.RecordBatch, ids: pa.Array) -> None:
    terminated = batch.column("terminated").to_numpy(zero_copy_only=False).astype(bool)
    truncated = batch.column("truncated").to_numpy(zero_copy_only=False).astype(bool)
    if (row := _first(terminated & truncated)) is not None:
        what = "both terminated and truncated are set; an end of the task is terminated, a time limit truncated"
        _refuse(ids, row, what)


def _check_turns(ids: pa.Array, sizes: dict[str, np.ndarray], flat: dict[str, np.ndarray]) -> None:
    turns = sizes["action_start"]
    if (row := _first(turns == 0)) is not None:
        _refuse(ids, row, "has no turns; drop episodes without an action")
    for name in ("action_end", "reward"):
        if (row := _first(sizes[name] != turns)) is not None:
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
        if (at := _first(wrong)) is not None:
            row = int(row_of_turn[at])
            action = f"action {at - first_turns[row]} [{starts[at]}, {ends[at]}) of {sizes['tokens'][row]} tokens"
            _refuse(ids, row, f"{action} {what}; offsets must rise")
    _check_segments(ids, sizes, flat, first_turns)
    lengths = np.add.reduceat((ends - starts).astype(np.int64), first_turns)
    for name in ("logprobs", "versions"):
        if (row := _first(sizes[name] != lengths)) is not None:
            what = f"{lengths[row]} action tokens but {sizes[name][row]} {name}; give one per action token"
            _refuse(ids, row, what)


def _check_segments(
    ids: pa.Array,
    sizes: dict[str, np.ndarray],
    flat: dict[str, np.ndarray],
    first_turns: np.ndarray,
) -> None:
    """Check `state_start`: empty, or one entry per state that is the one before it or the end of the action between."""
    given, turns = sizes["state_start"], sizes["action_start"]
    if not given.any():
        return
    if (row := _first((given > 0) & (given != turns + 1))) is not None:
        _refuse(ids, row, f"{turns[row]} turns but {given[row]} state_start; give one per state, or none")
    segmented = np.flatnonzero(given)
    bounds = np.cumsum(given) - given
    for row in segmented.tolist():
        start = flat["state_start"][bounds[row] : bounds[row] + given[row]]
        span = slice(first_turns[row], first_turns[row] + turns[row])
        action_start, action_end = flat["action_start"][span], flat["action_end"][span]
        state_end = np.append(action_start, sizes["tokens"][row])
        follows = (start[1:] == start[:-1]) | (start[1:] == action_end)
        if start[0] != 0 or not follows.all() or (start >= state_end).any():
            _refuse(
                ids,
                row,
                f"state_start is {start.tolist()}; a state begins where the one before it does, or at the end "
                "of the action between them, and holds at least one token",
            )


def _check_values(ids: pa.Array, sizes: dict[str, np.ndarray], flat: dict[str, np.ndarray]) -> None:
    for name, wrong, what in (
        ("reward", ~np.isfinite(flat["reward"]), "a finite number"),
        ("logprobs", ~np.isfinite(flat["logprobs"]), "a finite number (0.0 where no policy wrote the token)"),
        ("versions", flat["versions"] < -1, "a policy version, or -1 where no policy wrote the token"),
        ("tokens", flat["tokens"] < 0, "a token id"),
    ):
        if (at := _first(wrong)) is not None:
            ends = np.cumsum(sizes[name])
            row = int(np.searchsorted(ends, at, side="right"))
            place = at - int(ends[row] - sizes[name][row])
            _refuse(ids, row, f"{name}[{place}] is {flat[name][at]}; it must be {what}")
