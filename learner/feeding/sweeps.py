"""Which of the episodes that replay shows does a sweep take: each once in a run, and a group as a whole.

While rollouts go on, an episode stays within the window of a few policy versions for as many cycles. An on-policy
method takes it in the first of them and never again, so that no episode counts more than its epochs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buffer.episodes.schema import Episode


class Sweeps:
    """Remembers what was taken, as long as it could be shown again. Used on rank 0.

    Args:
        taken: ids of episodes that earlier sweeps took.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def take(self, shown: Sequence[Episode], *, group: int = 1, at_least: int = 1) -> list[Episode]:
        """Those of `shown` that no sweep has taken yet; they count as taken from now on.

        Args:
            shown: all episodes of the window.
            group: episodes of one environment seed that go together. Where fewer are there, the others are still being
                played, and all of them wait.
            at_least: below so many none is taken, and they wait.
        """
        new = [episode for episode in shown if episode.episode_id not in self.taken]
        sizes = Counter(episode.seed for episode in new)
        new = [episode for episode in new if sizes[episode.seed] >= group]
        if len(new) < at_least:
            new = []
        # What the window has left behind never comes back.
        self.taken &= {episode.episode_id for episode in shown}
        self.taken |= {episode.episode_id for episode in new}
        return new
