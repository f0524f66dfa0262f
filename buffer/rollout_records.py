"""Records that the rollout workers return to the learner and to the run.

`actors` builds them; `learner` and `archer` read them. They live in `buffer` because all three may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from buffer.episodes.schema import Episode


@dataclass
class FreshActions:
    """`counts[i]` sampled actions for each state i, in the order of the states; ragged arrays.

    Action k is `tokens[offsets[k] : offsets[k + 1]]`; its last token is the stop token unless the token limit cut it.
    """

    tokens: np.ndarray  # int32 [total]
    offsets: np.ndarray  # int64 [actions + 1]
    logprobs: np.ndarray  # float32 [total], under the sampling distribution; [0] if the request asked for none
    versions: np.ndarray  # int32 [total], the policy version that sampled each token
    counts: np.ndarray  # int32 [states]
    shares: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    """float32 [actions], the share of each action in the draws of its state; empty if they are equal."""

    def action(self, k: int) -> FreshActions:
        """Return action k alone."""
        start, end = self.offsets[k : k + 2]
        return FreshActions(
            tokens=self.tokens[start:end],
            offsets=np.array([0, end - start]),
            logprobs=self.logprobs[start:end],
            versions=self.versions[start:end],
            counts=np.ones(1, np.int32),
        )

    @classmethod
    def join(cls, parts: Sequence[FreshActions]) -> FreshActions:
        """Return the actions of all `parts`, in order."""
        ends = np.cumsum([0, *(len(part.tokens) for part in parts)])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, ends[:-1], strict=True)]
        return cls(
            tokens=np.concatenate([part.tokens for part in parts]),
            offsets=np.concatenate([np.zeros(1, np.int64), *offsets]),
            logprobs=np.concatenate([part.logprobs for part in parts]),
            versions=np.concatenate([part.versions for part in parts]),
            counts=np.concatenate([part.counts for part in parts]),
            shares=np.concatenate([part.shares for part in parts]),
        )


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode as it was played, with what replay does not hold; the lists have one entry per turn."""

    episode: Episode
    stops: list[str]  # Why each action ended: "stop token", "stop text", "token limit" or "thought limit"
    action_seconds: list[float]  # From the request of the action to its last token
    env_seconds: list[float]  # The environment's step
    invalid: list[bool]  # Whether the environment could not parse the action
    window_truncated: bool  # Whether the episode ended because its next state left no room in the context window


@dataclass(frozen=True)
class Recovery:
    """What a pool of workers has done for learners before, from which ranks that restart go on.

    Every version and every seed stands for one thing, so the restarted ranks use neither again.
    """

    version: int  # the largest policy version that any engine may hold
    next_seed: int  # the first episode seed that was never given out; 0 if none was
    episodes: int  # episodes that were played and stored since the pool started
    turns: int  # their turns


@dataclass
class CollectReport:
    """Results of finished episodes; the arrays have one entry per episode, in the order of the seeds."""

    returns: np.ndarray  # float32, undiscounted
    successes: np.ndarray  # float32; 1, 0, or NaN if the environment does not report success
    turns: np.ndarray  # int32
    invalid_actions: np.ndarray  # int32, turns whose action the environment could not parse
    versions: np.ndarray  # float32, mean policy version over the action tokens
    seeds: np.ndarray  # int64; they equal the environment's seeds unless episodes are played in groups
    tokens: np.ndarray  # int32, action tokens
    seconds: float  # Time since the previous report, or since the first episode
    window_truncations: int  # Episodes truncated because they exceeded the context window
    lost: int  # Episodes that were replayed because their worker died
    next_seed: int  # Lowest seed that is not finished; a resumed run continues there
    rejected_calls: int = 0  # Actions that were meant as native tool calls and are none of a tool that exists
    endless_thoughts: int = 0  # Actions whose thought was cut before its end, so that the environment received nothing
    failures: list[str] = field(default_factory=list)
    """Error messages of the episodes that were dropped because they could not be played: environment or rendering."""
    kept: list[PlayedEpisode] = field(default_factory=list)
    """The episodes that the caller asked to be kept, in the order of the seeds."""

    @property
    def action_tokens(self) -> int:
        """Return the number of action tokens of all episodes."""
        return int(self.tokens.sum())

    @property
    def env_failures(self) -> int:
        """Return the number of episodes that were dropped because they could not be played."""
        return len(self.failures)


@dataclass(frozen=True)
class WorkerStatus:
    """State of one rollout worker."""

    name: str
    version: int
    ready: bool  # Whether the worker is alive and holds the current weights
    restarts: int


@dataclass(frozen=True)
class ProbeAnswer:
    """Log-probabilities that one engine computes for a token sequence."""

    worker: str
    version: int  # Policy version of the engine
    logprobs: np.ndarray  # float32 [positions], log p(tokens[i] | tokens[:i]) at the sampling temperature
