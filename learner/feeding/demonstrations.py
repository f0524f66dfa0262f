"""Demonstrations: an Arrow file of episodes, read whole, and the batches of behavioural cloning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from buffer.atomic_files import write_atomic
from buffer.episodes.schema import Episode, batch_to_episodes, episodes_to_batch
from learner.algorithms.phases import Draws
from learner.config import LearnerConfig
from learner.errors import LearnerError
from learner.passes.rows import Batch, outside_actions, rows_from_samples, split

if TYPE_CHECKING:
    from learner.ranks import Leader


class DemonstrationSet:
    """The episodes of a file that `write_demonstrations` wrote, drawn uniformly with replacement.

    Args:
        held_out: share of the episodes that is never drawn, chosen at random by `seed`.
    """

    def __init__(self, path: Path, seed: int, held_out: float = 0.0) -> None:
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise LearnerError(
                f"no demonstrations to clone at {path} ({error}); set demonstrations.episodes, or "
                "learner.clone.steps=0 to start from the model without cloning"
            ) from error
        episodes = [episode for batch in batches for episode in batch_to_episodes(batch)]
        # A stream of its own: the draws stay those of a set of this size.
        order = np.random.default_rng((seed, 1)).permutation(len(episodes))
        chosen = set(order[: round(held_out * len(episodes))].tolist())
        self._held_out = [episode for index, episode in enumerate(episodes) if index in chosen]
        self._episodes = [episode for index, episode in enumerate(episodes) if index not in chosen]
        self._generator = np.random.default_rng(seed)

    def batches(self, draws: Draws, leader: Leader, config: LearnerConfig) -> Iterator[Batch]:
        """Yield this rank's batches of whole episodes. Called on every rank."""

        def next_batch() -> list[Batch]:
            draws.require_enough(len(self._episodes))
            chosen = self._generator.integers(len(self._episodes), size=draws.batch)
            rows = rows_from_samples([self._episodes[i] for i in chosen], np.full(draws.batch, -1))
            return split(rows, leader.ranks, config.micro_batch)

        for _ in range(draws.steps):
            yield leader.scatter(next_batch)

    def held_out(self, draws: Draws, leader: Leader, config: LearnerConfig) -> Batch:
        """Return this rank's share of the held-out episodes. Called on every rank.

        Raises:
            LearnerError: if they are fewer than a batch of `draws`.
        """

        def prepare() -> list[Batch]:
            held, all_of_them = len(self._held_out), len(self._held_out) + len(self._episodes)
            if held < draws.batch:
                raise LearnerError(
                    f"`learner.clone.held_out` {config.clone.held_out:g} holds out {held} of {all_of_them} "
                    f"demonstrations, fewer than the {draws.batch} of a batch, so that their loss tells little; raise "
                    "held_out or the number of demonstrations, or lower learner.clone.batch"
                )
            return split(rows_from_samples(self._held_out, np.full(held, -1)), leader.ranks, config.micro_batch)

        return leader.scatter(prepare)

    def require_observations(self) -> None:
        """Raise LearnerError if no episode has an observation token that a model could predict."""
        episodes = (*self._episodes, *self._held_out)
        if not any(len(outside_actions(episode, len(episode.tokens))) for episode in episodes):
            raise LearnerError(
                f"`learner.clone.observation_weight` trains the policy on observations, and the {len(episodes)} "
                "demonstrations have no token outside of their actions and after their first token; set it to 0, or "
                "use demonstrations with observations"
            )

    def require_texts(self) -> None:
        """Raise LearnerError if no episode has a privileged text that a model could predict."""
        episodes = (*self._episodes, *self._held_out)
        if not any(episode.privileged for episode in episodes):
            raise LearnerError(
                "`learner.clone.privileged_weight` trains the policy to predict what the environment hides, and none "
                f"of the {len(episodes)} demonstrations has such a text; set it and "
                "`learner.critic.privileged_weight` to 0, or let `reset` of the environment return info['privileged'] "
                "with texts, numbers or flags"
            )


def write_demonstrations(episodes: Sequence[Episode], path: Path) -> None:
    """Write `episodes` as one Arrow IPC file in the replay schema, whole or not at all."""
    batch, sink = episodes_to_batch(episodes), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    write_atomic(path, sink.getvalue().to_pybytes())
