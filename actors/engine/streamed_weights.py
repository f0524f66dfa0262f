"""The learner's weights in the memory of this host, for engines on another host than the learner.

The worker's process copies them while its engine generates. The engine then maps the copy, as engines on the learner's
host map the original.
"""

from __future__ import annotations

import os
from io import FileIO
from typing import Any

from actors.errors import WeightsUnreachable
from buffer.errors import ReplayError
from buffer.flight.memory_stream import Offer, read_into


class StreamedWeights:
    """Copies of the learner's memories, by the path that each has on the learner's host."""

    def __init__(self) -> None:
        self._files: dict[str, FileIO] = {}

    def fetch(self, offer: Offer, timeout_s: float) -> None:
        """Copy the memories of an offer. Blocks. Raises WeightsUnreachable."""
        for path, size in offer.sizes.items():
            if path not in self._files:
                self._files[path] = FileIO(os.memfd_create("archer-weights"), "rb+")
                self._files[path].truncate(size)
        try:
            read_into({path: self._files[path].fileno() for path in offer.sizes}, offer, timeout_s)
        except ReplayError as error:
            raise WeightsUnreachable(
                f"the weights did not arrive from {offer.name} at {offer.address} within {timeout_s:g} s: {error}"
            ) from error

    def located(self, info: dict[str, Any]) -> dict[str, Any]:
        """Return the location of weights in memory with the path that they have on this host."""
        file = self._files.get(info.get("path", ""))
        return info if file is None else {**info, "path": f"/proc/{os.getpid()}/fd/{file.fileno()}"}

    def clear(self) -> None:
        """Free the copies as soon as no engine maps them."""
        for file in self._files.values():
            file.close()
        self._files = {}
