"""The rows a shard holds, without log or network: dedupe, eviction, filters, uniform sampling, gathering.

Rows are held in the order they were appended. Their number within this store, `row`, counts from the first row
it ever held; `seq` is their number in the shard's whole history, which outlives restarts. Calls are not
synchronised here: the shard holds a lock around all but `Plan.gather`, which touches only memory that no longer
changes.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from buffer.columns import Chunk, Window, take_rows
from buffer.schema import EPISODE_SCHEMA, ragged_parts
from buffer.view import RowFilter
from buffer.wire import WIRE_SCHEMA, to_lists, to_wire

Unit = Literal["turn", "episode"]
# Threads would cost more than they save on so little.
_COLD = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_SWEEP_ROWS = 256
"""Rows in one batch of a sweep: enough to amortise a batch, few enough that none is huge."""
_SELECTIONS = 8
"""Filters whose rows are kept until the next append."""


@dataclass(frozen=True)
class _ColdMessages:
    """The messages of one append, compressed: people read them now and then, samplers never."""

    first_row: int
    rows: int
    data: pa.Buffer

    def read(self) -> pa.Array:
        return pa.ipc.open_stream(self.data).read_next_batch().column(0)


@dataclass(frozen=True)
class Plan:
    """What was drawn: distinct rows in rising order, and for each of n draws which of them and which turn.

    A sweep is the plan that draws every row once, in order.
    """

    row_of_draw: np.ndarray
    """int32[n], index into the gathered rows."""
    turn_of_draw: np.ndarray
    """int32[n], -1 where episodes were drawn."""
    _pieces: list[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]
    """Per batch: the columns of its chunk, the distinct rows to take from it, and their rows in the store."""
    _cold: list[_ColdMessages]

    def gather(self, *, messages: bool = False) -> Iterator[pa.RecordBatch]:
        """The distinct rows, copied out in order, batch by batch; with `messages` in `WIRE_SCHEMA`."""
        for table, local, rows in self._pieces:
            batch = take_rows(table, local)
            yield self._with_messages(batch, rows) if messages else batch

    def _with_messages(self, batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
        pieces: list[pa.Array] = []
        firsts = np.array([cold.first_row for cold in self._cold])
        home = np.searchsorted(firsts, rows, side="right") - 1
        for index in np.unique(home):
            column = self._cold[index].read()
            pieces.append(column.take(pa.array(rows[home == index] - firsts[index])))
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns["messages"] = pa.concat_arrays(pieces)
        return pa.RecordBatch.from_arrays([columns[name] for name in WIRE_SCHEMA.names], schema=WIRE_SCHEMA)


class Store:
    """Rows in a few large chunks with a window of per-row numbers over them."""

    def __init__(self, *, capacity_turns: int, chunk_bytes: int) -> None:
        self.capacity_turns = capacity_turns
        self.chunk_bytes = chunk_bytes
        self.evicted = 0
        """Episodes evicted since this store was made."""
        self._next_row = 0
        self._chunks: list[Chunk] = []
        self._cold: deque[_ColdMessages] = deque()
        self._seq = Window(np.int64)
        self._turn_end = Window(np.int64)
        """Turns of all rows up to and with this one, since the store was made."""
        self._turn_base = 0
        """Turns of all rows evicted so far."""
        self._oldest_version = Window(np.int32)
        self._return = Window(np.float64)
        """Undiscounted, in the precision of `Episode.ret`."""
        self._ids: dict[str, int] = {}
        """seq of each id known: those held, and evicted ones until `forget_before`. In order of seq."""
        self._selections: dict[RowFilter, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self._seq)

    @property
    def turns(self) -> int:
        """Turns held."""
        return int(self._turn_end.view()[-1]) - self._turn_base if len(self._seq) else 0

    @property
    def turns_ever(self) -> int:
        """Turns appended since this store was made."""
        return self._turn_base + self.turns

    @property
    def bytes(self) -> int:
        """Bytes of the columns held."""
        return sum(chunk.bytes for chunk in self._chunks) + sum(cold.data.size for cold in self._cold)

    @property
    def oldest_seq(self) -> int | None:
        """`seq` of the oldest row held."""
        return int(self._seq.view()[0]) if len(self._seq) else None

    def ids(self) -> list[str]:
        """Ids held, oldest first."""
        oldest = self.oldest_seq
        return [] if oldest is None else [name for name, seq in self._ids.items() if seq >= oldest]

    def fresh_rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """int64[k], the rows of the batch whose id is not known; of rows with the same id the first."""
        seen: set[str] = set()
        fresh = []
        for row, name in enumerate(batch.column("episode_id").to_pylist()):
            if name not in self._ids and name not in seen:
                seen.add(name)
                fresh.append(row)
        return np.array(fresh, dtype=np.int64)

    def append(self, batch: pa.RecordBatch, first_seq: int) -> int:
        """Hold rows of `EPISODE_SCHEMA` whose ids are new, evicting the oldest; returns how many it evicted."""
        rows = batch.num_rows
        if rows == 0:
            return 0
        turns = np.diff(ragged_parts(batch.column("action_start"))[0]).astype(np.int64)
        self._hot_chunk().extend(to_wire(batch))
        self._keep_messages(batch.column("messages"))
        self._turn_end.extend(self._turn_base + self.turns + np.cumsum(turns))
        self._seq.extend(np.arange(first_seq, first_seq + rows))
        self._oldest_version.extend(_per_row(np.minimum, batch.column("versions"), np.int32))
        self._return.extend(_per_row(np.add, batch.column("reward"), np.float64))
        for seq, name in enumerate(batch.column("episode_id").to_pylist(), first_seq):
            self._ids[name] = seq
        self._next_row += rows
        self._selections.clear()
        return self._evict()

    def _hot_chunk(self) -> Chunk:
        if not self._chunks or self._chunks[-1].bytes >= self.chunk_bytes:
            if self._chunks:
                self._chunks[-1].seal()
            self._chunks.append(Chunk(self._next_row))
        return self._chunks[-1]

    def _keep_messages(self, column: pa.Array) -> None:
        sink = pa.BufferOutputStream()
        batch = pa.RecordBatch.from_arrays([column], names=["messages"])
        with pa.ipc.new_stream(sink, batch.schema, options=_COLD) as writer:
            writer.write_batch(batch)
        self._cold.append(_ColdMessages(self._next_row, len(column), sink.getvalue()))

    def _evict(self) -> int:
        ends = self._turn_end.view()
        excess = int(ends[-1]) - self.capacity_turns
        if self._turn_base >= excess:
            return 0
        # What is left is the longest run of newest rows that fits, and always the newest row.
        count = min(int(np.searchsorted(ends, excess)) + 1, len(ends) - 1)
        if count == 0:
            return 0
        self._turn_base = int(ends[count - 1])
        for window in (self._seq, self._turn_end, self._oldest_version, self._return):
            window.drop(count)
        self.evicted += count
        oldest_row = self._oldest_row
        keep = max(0, bisect_right([chunk.first_row for chunk in self._chunks], oldest_row) - 1)
        del self._chunks[:keep]
        while self._cold and self._cold[0].first_row + self._cold[0].rows <= oldest_row:
            self._cold.popleft()
        return count

    def forget_before(self, seq: int) -> None:
        """Forget the ids of rows before `seq` that are no longer held: an append with such an id is new again."""
        oldest = self.oldest_seq
        limit = seq if oldest is None else min(seq, oldest)
        gone = []
        for name, known in self._ids.items():
            if known >= limit:
                break
            gone.append(name)
        for name in gone:
            del self._ids[name]

    def counts(self, only: RowFilter) -> tuple[int, int]:
        """(episodes, turns) held that pass the filter."""
        if only.everything:
            return self.episodes, self.turns
        rows, ends = self._select(only)
        return len(rows), int(ends[-1]) if len(ends) else 0

    def returns(self, only: RowFilter) -> tuple[np.ndarray, np.ndarray]:
        """(undiscounted return float64[k], turns int64[k]) of each row that passes the filter, oldest first."""
        rows, ends = self._select(only)
        return self._return.view()[rows], np.diff(ends, prepend=0)

    def draw(self, count: int, *, unit: Unit, only: RowFilter, rng: np.random.Generator) -> Plan | None:
        """Draw `count` turns or episodes uniformly, with replacement; None where there are none to draw."""
        if only.everything:
            index, turn = self._draw_from(self._turn_end.view(), self._turn_base, count, unit, rng)
        else:
            rows, ends = self._select(only)
            index, turn = self._draw_from(ends, 0, count, unit, rng)
            index = rows[index] if len(rows) else index
        if len(index) == 0:
            return None
        distinct, row_of_draw = np.unique(index + self._oldest_row, return_inverse=True)
        return Plan(row_of_draw.astype(np.int32), turn, self._pieces(distinct), list(self._cold))

    def sweep(self, only: RowFilter) -> Plan:
        """Every row that passes the filter once, oldest first, in batches of bounded length."""
        rows, _ = self._select(only)
        once = np.arange(len(rows), dtype=np.int32)
        pieces = self._pieces(rows + self._oldest_row, at_most=_SWEEP_ROWS)
        return Plan(once, np.full(len(rows), -1, np.int32), pieces, list(self._cold))

    @property
    def _oldest_row(self) -> int:
        return self._next_row - self.episodes

    def _pieces(
        self, rows: np.ndarray, *, at_most: int | None = None
    ) -> list[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        firsts = np.array([chunk.first_row for chunk in self._chunks])
        home = np.searchsorted(firsts, rows, side="right") - 1
        pieces = []
        for index in np.unique(home):
            mine = rows[home == index]
            for part in [mine] if at_most is None else np.split(mine, range(at_most, len(mine), at_most)):
                pieces.append((self._chunks[index].table(), part - firsts[index], part))
        return pieces

    @staticmethod
    def _draw_from(
        ends: np.ndarray, base: int, count: int, unit: Unit, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(position in `ends`, turn) of each draw; `ends` are cumulative turns beyond `base`."""
        if len(ends) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        if unit == "episode":
            return rng.integers(0, len(ends), count), np.full(count, -1, np.int32)
        place = base + rng.integers(0, int(ends[-1]) - base, count)
        index = np.searchsorted(ends, place, side="right")
        starts = np.where(index > 0, ends[index - 1], base)
        return index, (place - starts).astype(np.int32)

    def _select(self, only: RowFilter) -> tuple[np.ndarray, np.ndarray]:
        """(positions among the rows held, their cumulative turns) that pass; kept until the next append."""
        if only not in self._selections:
            if len(self._selections) == _SELECTIONS:
                self._selections.clear()
            rows = only.rows(self._oldest_version.view(), self._return.view())
            turns = np.diff(self._turn_end.view(), prepend=self._turn_base)
            self._selections[only] = (rows, np.cumsum(turns[rows]))
        return self._selections[only]

    def batches(self) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Everything held, in order, as (seq of the first row, turns before it since the store was made, batch)."""
        oldest_row = self._oldest_row
        seq, ends = self._seq.view(), self._turn_end.view()
        for cold in self._cold:
            first = max(cold.first_row, oldest_row)
            rows = np.arange(first, cold.first_row + cold.rows)
            plan = Plan(rows, rows, self._pieces(rows), [cold])
            for batch in plan.gather(messages=True):
                at = first - oldest_row
                lists = to_lists(batch).select(EPISODE_SCHEMA.names)
                yield int(seq[at]), int(ends[at - 1]) if at else self._turn_base, lists
                first += batch.num_rows


def _per_row(reduce: np.ufunc, column: pa.ListArray, dtype: type) -> np.ndarray:
    """The numbers of each row of a list column, none of them empty, reduced to one."""
    offsets, flat = ragged_parts(column)
    return reduce.reduceat(flat[: offsets[-1]], offsets[:-1], dtype=dtype)
