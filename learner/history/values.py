"""The values of turns as the steps of a cycle used them, collected without a synchronisation with the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from learner.passes.rows import Row

_COLUMNS = ("q", "v", "advantage", "target")
VALUE_TABLE: pa.Schema = pa.schema(
    [
        ("episode_id", pa.string()),
        ("turn", pa.int32()),
        ("cycle", pa.int32()),  # of the step, from 1
        ("version", pa.int32()),  # policy version of the engines at the step
        *((name, pa.float32()) for name in _COLUMNS),
        ("token_advantage", pa.list_(pa.float32())),  # of each token, where tokens have advantages of their own
    ]
)
"""The columns of `history/values`: at most one row for each turn and cycle, that of the last step that used it."""


class TurnValues:
    """Values that steps have used since the last `take`, the newest `limit` turns of them.

    `add` keeps tensors where they are and copies nothing to the host; `take` copies all of them at once.
    """

    def __init__(self) -> None:
        self.limit = 0
        self._ids: deque[tuple[list[str], np.ndarray]] = deque()
        self._values: deque[Tensor] = deque()
        self._tokens: dict[tuple[str, int], np.ndarray] = {}
        self._held = 0

    def add(self, rows: Sequence[Row], **values: Tensor) -> None:
        """Keep values of the sampled turns of `rows`, each [samples] in layout order, under names of `VALUE_TABLE`."""
        if not self.limit:
            return
        turns = np.concatenate([row.turns for row in rows])
        self._add([row.episode.episode_id for row in rows for _ in row.turns], turns, values)

    def add_episode(
        self, episode_id: str, turns: int, token_advantage: Sequence[np.ndarray] = (), **values: Tensor
    ) -> None:
        """Keep values of all turns of an episode, each [turns], and the advantages of each turn's tokens if given."""
        if not self.limit:
            return
        self._add([episode_id] * turns, np.arange(turns), values)
        self._tokens.update({(episode_id, turn): part for turn, part in enumerate(token_advantage)})

    def _add(self, ids: list[str], turns: np.ndarray, values: dict[str, Tensor]) -> None:
        device = next(iter(values.values())).device
        unknown = torch.full((len(ids),), torch.nan, device=device)
        stacked = [values[name].detach().float() if name in values else unknown for name in _COLUMNS]
        self._ids.append((ids, turns))
        self._values.append(torch.stack(stacked))
        self._held += len(ids)
        while self._held - len(self._ids[0][0]) >= self.limit:
            self._held -= len(self._ids.popleft()[0])
            self._values.popleft()

    def take(self, cycle: int, version: int) -> pa.Table | None:
        """Return the rows of `VALUE_TABLE` since the last call, and forget them; None if there are none."""
        if not self._ids:
            return None
        ids = [name for names, _ in self._ids for name in names]
        turns = np.concatenate([turns for _, turns in self._ids]).astype(np.int32)
        values = torch.cat(list(self._values), dim=1).cpu().numpy()
        last = {key: at for at, key in enumerate(zip(ids, turns.tolist(), strict=True))}
        rows = np.fromiter(last.values(), np.int64, len(last))[-self.limit :]
        keys = [(ids[row], int(turns[row])) for row in rows]
        numbers = [pa.array(values[i, rows], mask=~np.isfinite(values[i, rows])) for i in range(len(_COLUMNS))]
        tokens = pa.array([self._tokens.get(key) for key in keys], pa.list_(pa.float32()))
        constants = [pa.array(np.full(len(rows), number, np.int32)) for number in (cycle, version)]
        columns = [pa.array([key[0] for key in keys], pa.string()), pa.array(turns[rows]), *constants, *numbers, tokens]
        self._ids.clear()
        self._values.clear()
        self._tokens.clear()
        self._held = 0
        return pa.Table.from_arrays(columns, schema=VALUE_TABLE)
