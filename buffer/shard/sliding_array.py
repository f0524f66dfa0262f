"""Arrays of numbers per row: they grow at one end and are forgotten at the other."""

import numpy as np


class Window:
    """A numpy array appended to at its end and dropped from at its front; memory follows what is held.

    A view handed out stays right, and unchanged, while the window moves on.
    """

    def __init__(self, dtype: np.dtype | type) -> None:
        self._data = np.empty(64, dtype)
        self._start = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._start

    def extend(self, values: np.ndarray) -> None:
        """Append `values` at the end."""
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
        """Forget the oldest `count`."""
        self._start += count

    def view(self) -> np.ndarray:
        """What is held, oldest first, without copying."""
        return self._data[self._start : self._end]
