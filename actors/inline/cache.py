"""Keys and values of the episodes in flight, each episode in a slot of its own.

The keys and values of a slot are left-aligned: position p of the episode is in column p. A pass over several slots
writes its new tokens behind what each slot holds. A shorter chunk is padded at its end; the pad's columns lie behind
the slot's length, where the slot's next tokens overwrite them before any token attends to them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

_FIRST_COLUMNS = 128


class Slots(Cache):
    """The cache of `slots` sequences. `place` chooses the slots and columns of the next pass."""

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self.lengths = np.zeros(slots, np.int64)
        self._free = list(range(slots))
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._columns = _FIRST_COLUMNS
        self._rows = self._positions = torch.empty(0, dtype=torch.long)
        self._all = False
        self._end = 0

    def take(self) -> int:
        """Return the first empty slot. There must be one: at most as many episodes are in flight as there are slots.

        The first one, so that which slot an episode gets does not depend on the episodes before.
        """
        slot = heapq.heappop(self._free)
        self.lengths[slot] = 0
        return slot

    def give_back(self, slot: int) -> None:
        """Free a slot."""
        heapq.heappush(self._free, slot)

    def place(self, slots: Sequence[int], sizes: np.ndarray) -> tuple[Tensor, Tensor]:
        """Prepare a pass that feeds `sizes[i]` more tokens to slot `slots[i]`.

        Returns their positions, int64 [rows, longest], and the additive mask [rows, 1, longest, columns].
        """
        first = self.lengths[list(slots)]
        positions = torch.from_numpy(first[:, None] + np.arange(sizes.max()))
        self._rows = torch.tensor(list(slots))
        self._positions = positions
        self._all = len(slots) == len(self.lengths) and list(slots) == list(range(len(slots)))
        self._end = int((first + sizes).max())
        self._grow(int(positions.max()) + 1)
        self.lengths[list(slots)] += sizes
        seen = torch.arange(self._end) <= positions.unsqueeze(-1)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)
        return positions, mask.unsqueeze(1)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of one layer, [rows, heads, longest, width], and return those of the whole rows."""
        if layer_idx == len(self._keys):
            slots, (_, heads, _, width) = len(self.lengths), key_states.shape
            self._keys.append(key_states.new_zeros(slots, heads, self._columns, width))
            self._values.append(value_states.new_zeros(slots, heads, self._columns, value_states.shape[-1]))
        held = []
        for store, new in ((self._keys[layer_idx], key_states), (self._values[layer_idx], value_states)):
            store[self._rows.unsqueeze(1), :, self._positions] = new.transpose(1, 2)
            held.append(store[:, :, : self._end] if self._all else store[self._rows, :, : self._end])
        return held[0], held[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of columns of the present pass, which models read only if they get no positions."""
        return self._end

    def _grow(self, columns: int) -> None:
        if columns <= self._columns:
            return
        more = max(columns, 2 * self._columns) - self._columns
        for stores in (self._keys, self._values):
            stores[:] = [torch.nn.functional.pad(store, (0, 0, 0, more)) for store in stores]
        self._columns += more
