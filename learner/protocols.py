"""What the learner needs of the rest of the run, as protocols.

The run passes in objects that satisfy them (`actors.pool.client.PoolClient`, `buffer.client.ray_client.ReplayClient`,
`archer.driver.board.BoardPublisher`), so that the learner imports neither `actors` nor `archer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from buffer.episodes.schema import Episode
    from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, WorkerStatus
    from buffer.sampling.request import SampleRequest
    from buffer.sampling.sample import Stats


class RolloutService(Protocol):
    """The pool of engines, as the learner sees it. See docs/architecture.md for each call."""

    @property
    def stale_error(self) -> type[Exception]:
        """Raised by `collect`, `report` and the future of `request` when no engine holds the current weights (all were
        restarted since the last broadcast): broadcast again, then ask again."""
        ...

    def ready(self, timeout_s: float) -> None:
        """Wait until every engine has come up; the error names those that have not."""
        ...

    def window(self) -> int:
        """Tokens of the longest sequence that the engines take."""
        ...

    def collect(
        self,
        episodes: int,
        *,
        first_seed: int,
        group: int = 1,
        store: bool = True,
        greedy: bool = False,
        timeout_s: float | None = None,
    ) -> CollectReport: ...

    def start(self, *, first_seed: int, episodes_per_version: int, max_staleness: int, group: int = 1) -> None: ...

    def stop(self) -> None: ...

    def report(self, *, at_least: int, timeout_s: float) -> CollectReport:
        """Wait until `at_least` episodes of `start` have finished, and been appended, since the last report."""
        ...

    def request(self, prompts: list[np.ndarray], n: int | np.ndarray, *, logprobs: bool = True) -> Future[FreshActions]:
        """Request `n` actions for each state, or `n[i]` for state i. Without `logprobs` the engines compute none."""
        ...

    def workers(self) -> Sequence[WorkerStatus]: ...

    def sync_client(self) -> Any: ...

    def probe(self, tokens: np.ndarray) -> Sequence[ProbeAnswer]: ...


class Scorer(Protocol):
    """A Ray actor that picks actions by a critic (`learner.critic_scorer.CriticScorer`)."""

    @property
    def load(self) -> Any:
        """`load.remote(state, version)` gives it the critic's weights."""
        ...


class Drawn(Protocol):
    """`n` draws: an episode and a turn each, -1 for all turns of it."""

    @property
    def episodes(self) -> list[Episode]: ...

    @property
    def turns(self) -> np.ndarray: ...


class PrioritisedDrawn(Drawn, Protocol):
    """Draws by priority."""

    @property
    def shards(self) -> np.ndarray:
        """Int32 [n]; with `seqs`, int64 [n], what `PrioritySource.update_priorities_at` knows an episode by."""
        ...

    @property
    def seqs(self) -> np.ndarray: ...

    def importance_weights(self, exponent: float) -> np.ndarray:
        """Float32 [n], at most 1."""
        ...


class Held(Protocol):
    """How much there is to sample from."""

    @property
    def episodes(self) -> int: ...

    @property
    def turns(self) -> int: ...


class SampleSource(Protocol):
    """Whatever gives samples."""

    def stats(self) -> Held: ...

    def sample(self, request: SampleRequest, *, timeout_s: float | None = None) -> Drawn: ...

    def sweep(
        self,
        *,
        view: Literal["critic", "actor"] = "critic",
        min_version: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Episode]:
        """Every episode of the view once."""
        ...


class PrioritySource(SampleSource, Protocol):
    """One that draws by priority, and then gives a `PrioritisedDrawn`."""

    def update_priorities_at(
        self, shards: np.ndarray, seqs: np.ndarray, turns: np.ndarray, priorities: np.ndarray
    ) -> int:
        """New priorities of turns, all [n]; how many are still held."""
        ...


class ReplaySource(PrioritySource, Protocol):
    """The replay service, as the learner sees it."""

    def stats(self) -> Stats: ...

    def checkpoint(self, directory: Path) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Publisher(Protocol):
    """Where the learner tells the run what happens; see docs/architecture.md for the events."""

    def publish(self, event: dict[str, Any]) -> None: ...

    def register_target(self, role: str, name: str, address: str) -> None: ...
