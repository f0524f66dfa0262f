"""Rows: what one token sequence of a step trains on, as plain arrays that travel from rank 0 to its rank.

A row is one episode with a selection of its turns and, where the phase asks for them, fresh actions at the
states of these turns. Several samples of one episode share one row, so that its tokens are encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learner.errors import LearnerError

if TYPE_CHECKING:
    from buffer.episodes.schema import Episode


@dataclass
class Row:
    """One episode, the turns of it that count, and fresh actions at them.

    Attributes:
        episode_id: for error messages.
        tokens: int32 [length], the whole episode.
        action_start, action_end: int32 [turns of the episode], offsets into `tokens`.
        reward: float32 [turns of the episode].
        terminated: whether the episode ended by itself (not by a limit).
        turns: int32 [samples], the turns that count. A turn drawn twice stands twice.
        logprobs, versions: float32 and int32 [action tokens of the episode], of the policy that wrote them.
        seed: the environment's; episodes of one seed are one group.
        weights: float32 [samples], by how much each counts; empty where all count the same.
        home: shard and number in it, by which replay knows the episode; None where its priorities don't matter.
        fresh: per sample, a list of `n` int32 arrays of tokens. Empty where the phase asks for none.
        fresh_logprobs, fresh_versions: along with `fresh`, float32 and int32; log-probabilities only where the phase
            asks for them.
    """

    episode_id: str
    tokens: np.ndarray
    action_start: np.ndarray
    action_end: np.ndarray
    reward: np.ndarray
    terminated: bool
    turns: np.ndarray
    logprobs: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    versions: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    seed: int = 0
    weights: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    home: tuple[int, int] | None = None
    fresh: list[list[np.ndarray]] = field(default_factory=list)
    fresh_logprobs: list[list[np.ndarray]] = field(default_factory=list)
    fresh_versions: list[list[np.ndarray]] = field(default_factory=list)

    def state_end(self, turn: int) -> int:
        """Number of tokens of state s_turn; the state after the last turn is the whole episode."""
        return int(self.action_start[turn]) if turn < len(self.action_start) else len(self.tokens)

    @property
    def size(self) -> int:
        """Tokens that a packed pass over this row encodes."""
        return len(self.tokens) + sum(len(action) for actions in self.fresh for action in actions)


def rows_from_samples(
    episodes: Sequence[Episode],
    turns: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    homes: Sequence[tuple[int, int]] | None = None,
) -> list[Row]:
    """Group samples by episode.

    Args:
        episodes: one per sample, repeats allowed.
        turns: int [samples]; -1 takes all turns of the episode.
        weights: float32 [samples], of prioritised draws; an episode's is that of all its turns.
        homes: one per sample, see `Row.home`.
    """
    selected: dict[str, tuple[Episode, list[int], list[float]]] = {}
    home_of: dict[str, tuple[int, int]] = {}
    for draw, (episode, turn) in enumerate(zip(episodes, turns, strict=True)):
        _, chosen, counts = selected.setdefault(episode.episode_id, (episode, [], []))
        more = range(episode.turns) if turn < 0 else [int(turn)]
        chosen.extend(more)
        if weights is not None:
            counts.extend([float(weights[draw])] * len(more))
        if homes is not None:
            home_of[episode.episode_id] = homes[draw]
    return [
        Row(
            episode_id=episode.episode_id,
            tokens=np.asarray(episode.tokens),
            action_start=np.asarray(episode.action_start),
            action_end=np.asarray(episode.action_end),
            reward=np.asarray(episode.reward),
            terminated=bool(episode.terminated),
            turns=np.asarray(chosen, dtype=np.int32),
            logprobs=np.asarray(episode.logprobs),
            versions=np.asarray(episode.versions),
            seed=episode.seed,
            weights=np.asarray(counts, dtype=np.float32),
            home=home_of.get(episode.episode_id),
        )
        for episode, chosen, counts in selected.values()
    ]


def fresh_record(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour log-probability (float32) and version (int64) of each fresh token, in the layout's order."""
    logprobs = [a for row in rows for actions in row.fresh_logprobs for a in actions]
    versions = [a for row in rows for actions in row.fresh_versions for a in actions]
    return np.concatenate(logprobs).astype(np.float32), np.concatenate(versions).astype(np.int64)


def action_record(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour log-probability (float32) and version (int64) of each action token, in the layout's order."""
    logprobs, versions = [], []
    for row in rows:
        ends = np.cumsum(row.action_end - row.action_start)
        for turn in row.turns:
            span = slice(ends[turn] - (row.action_end[turn] - row.action_start[turn]), ends[turn])
            logprobs.append(row.logprobs[span])
            versions.append(row.versions[span])
    return np.concatenate(logprobs).astype(np.float32), np.concatenate(versions).astype(np.int64)


def deal(rows: Sequence[Row], ranks: int, micro_batch: int) -> list[list[list[Row]]]:
    """Split the rows of a global batch into micro-batches of similar length, as many for each rank.

    Rows are sorted by size and dealt out in turn, so that padding is small and ranks have equal work. Every rank
    gets the same number of micro-batches, since a backward pass under ZeRO is a collective.

    Returns:
        `ranks` lists of micro-batches, each a non-empty list of rows.

    Raises:
        LearnerError: if there are fewer rows than ranks.
    """
    if len(rows) < ranks:
        raise LearnerError(
            f"a step drew {len(rows)} episodes, fewer than the {ranks} learner ranks; raise the phase's `batch`"
        )
    pieces = min(-(-len(rows) // (ranks * micro_batch)), len(rows) // ranks)
    ordered = sorted(rows, key=lambda row: row.size)
    chunks = [list(chunk) for chunk in np.array_split(np.arange(len(ordered)), pieces)]
    dealt: list[list[list[Row]]] = [[] for _ in range(ranks)]
    for chunk in chunks:
        for rank in range(ranks):
            dealt[rank].append([ordered[i] for i in chunk[rank::ranks]])
    return dealt
