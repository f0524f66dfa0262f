"""Rows: the episodes, turns and fresh actions that a step trains on. Rank 0 makes them and sends each rank its share.

Several samples of one episode share a row, so that a packed pass encodes the tokens of the episode once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from learner.errors import LearnerError


@dataclass
class Row:
    """One episode, its sampled turns, and fresh actions at the states of these turns.

    Attributes:
        turns: int32 [samples]. A turn that was drawn twice is listed twice.
        weights: float32 [samples], weight of each sample's loss; empty if all weights are 1.
        key: (shard, number in the shard) of the episode in replay; None if its priorities are not updated.
        bootstraps: whether the row has fresh actions at the state after its last turn too.
        fresh: fresh actions at each of `states`; None if the phase needs none.
        advantage: float32 [states, most actions of the micro-batch], of the fresh actions. The first epoch of a phase
            sets it for the later ones, in which the critic is the same.
    """

    episode: Episode
    turns: np.ndarray
    weights: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    key: tuple[int, int] | None = None
    bootstraps: bool = False
    fresh: FreshActions | None = None
    advantage: np.ndarray | None = None

    @property
    def states(self) -> np.ndarray:
        """Return the turns at whose states the row has fresh actions, int32 [states]."""
        return np.append(self.turns, self.turns[-1:] + 1) if self.bootstraps else self.turns

    @property
    def size(self) -> int:
        """Return the number of tokens that a packed pass over this row encodes."""
        return len(self.episode.tokens) + (0 if self.fresh is None else len(self.fresh.tokens))

    def fresh_at(self, state: int) -> list[np.ndarray]:
        """Return the fresh actions of state number `state` of `states`, each int32 [tokens]."""
        assert self.fresh is not None
        first = int(self.fresh.counts[:state].sum())
        bounds = self.fresh.offsets[first : first + self.fresh.counts[state] + 1]
        return [self.fresh.tokens[start:end] for start, end in itertools.pairwise(bounds)]


def rows_from_samples(
    episodes: Sequence[Episode],
    turns: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    keys: Sequence[tuple[int, int]] | None = None,
) -> list[Row]:
    """Group samples by episode, in the order in which the episodes first appear.

    Args:
        episodes: one for each sample; an episode may appear several times.
        turns: int [samples]; -1 selects all turns of the episode.
        weights: float32 [samples]; the weight of an episode applies to all its turns.
        keys: one for each sample, see `Row.key`.
    """
    selected: dict[str, tuple[int, list[int], list[float]]] = {}
    for draw, (episode, turn) in enumerate(zip(episodes, turns, strict=True)):
        _, chosen, counts = selected.setdefault(episode.episode_id, (draw, [], []))
        more = range(episode.turns) if turn < 0 else [int(turn)]
        chosen.extend(more)
        if weights is not None:
            counts.extend([float(weights[draw])] * len(more))
    return [
        Row(
            episodes[first],
            np.asarray(chosen, dtype=np.int32),
            weights=np.asarray(counts, dtype=np.float32),
            key=None if keys is None else keys[first],
        )
        for first, chosen, counts in selected.values()
    ]


def whole_episodes(rows: Sequence[Row], window: int) -> list[Row]:
    """Return each episode with each of its turns once, and with a bootstrap unless it terminated.

    A context window of `window` tokens may leave no room for an action after the last turn. That turn has no target
    then, and the row bootstraps from the state before it. An episode whose only turn this is, is left out.
    """
    found = []
    for row in rows:
        episode = row.episode
        turns = episode.turns - (not episode.terminated and len(episode.state(episode.turns)) >= window)
        if turns:
            weights = row.weights[:turns]
            bootstraps = not episode.terminated
            found.append(replace(row, turns=np.arange(turns, dtype=np.int32), weights=weights, bootstraps=bootstraps))
    return found


def fresh_record(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return the behaviour log-probability (float32) and version (int64) of each fresh token, in layout order."""
    fresh = [row.fresh for row in rows if row.fresh is not None]
    logprobs, versions = (np.concatenate([getattr(f, name) for f in fresh]) for name in ("logprobs", "versions"))
    return logprobs.astype(np.float32), versions.astype(np.int64)


def distinct_fresh(rows: Iterable[Row]) -> int:
    """Return the number of distinct fresh actions of each sample, summed over the samples."""
    samples = ((row, sample) for row in rows for sample in range(len(row.turns)))
    return sum(len({action.tobytes() for action in row.fresh_at(sample)}) for row, sample in samples)


def fresh_shares(rows: Iterable[Row]) -> np.ndarray:
    """Return the share of each fresh action in its state's draws, 0 at pads: float32 [states, most actions]."""
    fresh = [row.fresh for row in rows if row.fresh is not None]
    counts = np.concatenate([f.counts for f in fresh])
    equal = [f.shares if len(f.shares) else np.repeat(1.0 / f.counts, f.counts) for f in fresh]
    shares = np.zeros((len(counts), counts.max()), dtype=np.float32)
    shares[np.arange(counts.max()) < counts[:, None]] = np.concatenate(equal)
    return shares


def action_record(rows: Iterable[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return the behaviour log-probability (float32) and version (int64) of each action token, in layout order."""
    logprobs, versions = [], []
    for row in rows:
        lengths = row.episode.action_end - row.episode.action_start
        ends = np.cumsum(lengths)
        for turn in row.turns:
            span = slice(ends[turn] - lengths[turn], ends[turn])
            logprobs.append(row.episode.logprobs[span])
            versions.append(row.episode.versions[span])
    return np.concatenate(logprobs).astype(np.float32), np.concatenate(versions).astype(np.int64)


def outside_actions(episode: Episode, end: int, start: int = 0) -> np.ndarray:
    """Return the places of the observation tokens from `start`, where a segment begins, up to `end`, int64 ascending.

    They belong to no action and have a token before them, which predicts them. A later segment repeats the history, of
    which only the tokens behind the common beginning with the segment before it count.
    """
    bounds = np.zeros(len(episode.tokens) + 1, dtype=np.int64)
    np.add.at(bounds, episode.action_start, 1)
    np.add.at(bounds, episode.action_end, -1)
    first = start + 1
    if start:
        before = episode.tokens[episode.state_start[episode.state_start < start].max() : start]
        segment = episode.tokens[start:end]
        shorter = min(len(before), len(segment))
        other = np.flatnonzero(before[:shorter] != segment[:shorter])
        first = max(first, start + (int(other[0]) if len(other) else shorter))
    return np.flatnonzero(np.cumsum(bounds)[first:end] == 0) + first


@dataclass(frozen=True)
class Batch:
    """The rows of one rank in one step.

    Attributes:
        samples: number of samples (turns) of the global batch.
        waited_s: seconds that rank 0 waited for fresh actions.
        recent_share: share of the samples that were drawn from recent episodes, see `Draws.recent_share`.
    """

    micro_batches: list[list[Row]]
    samples: int
    waited_s: float = 0.0
    recent_share: float = 0.0


def split(rows: Sequence[Row], ranks: int, micro_batch: int, waited_s: float = 0.0) -> list[Batch]:
    """Return each rank's share of a global batch. Raises LearnerError if there are fewer rows than ranks."""
    samples = sum(len(row.turns) for row in rows)
    return [Batch(share, samples, waited_s) for share in deal(rows, ranks, micro_batch)]


def deal(rows: Sequence[Row], ranks: int, micro_batch: int) -> list[list[list[Row]]]:
    """Split the rows of a global batch into micro-batches of rows of similar size, the same number for each rank.

    Rows are sorted by size and dealt in turn, so that padding is small and the ranks have equal work. Each rank gets
    the same number of micro-batches, because a backward pass under ZeRO is a collective operation.

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
