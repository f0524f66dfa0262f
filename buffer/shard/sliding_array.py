"""An array of one number per row that grows at its end and shrinks at its front."""

import numpy as np


class SlidingArray:
    """A numpy array with append at the end and drop at the front; its memory follows its length.

    A view that was returned before stays valid and unchanged.
    """

    def __init__(self, dtype: np.dtype | type) -> None:
        self._data = np.empty(64, dtype)
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def extend(self, values: np.ndarray) -> None:
        """Append `values`."""
        end = self._end + len(values)
        if end > len(self._data):
            held = len(self)
            moved = np.empty(max(64, held + len(values), held + held // 4), self._data.dtype)
            moved[:held] = self.view()
            self._data, self._start, self._end = moved, 0, held
            end = held + len(values)
        self._data[self._end : end] = values
        self._end = end

    def drop(self, count: int) -> None:
        """Drop the oldest `count` values."""
        self._start += count

    def view(self) -> np.ndarray:
        """Return the values, oldest first, without copying."""
        return self._data[self._start : self._end]
