"""Protocols of the objects that a run passes to the learner: the rollouts, the scorer, the board and exact values.

`actors.pool.client.PoolClient`, `learner.critic_scorer.ActorScorer`, `archer.driver.board.BoardPublisher` and
`archer.driver.exact_actions.ExactActionValues` implement them, so that the learner imports neither `actors` nor
`archer`. What rollouts return is in `buffer.rollout_records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from buffer.episodes.schema import Episode
    from buffer.rollout_records import CollectReport, FreshActions, ProbeAnswer, Recovery, WorkerStatus


class RolloutService(Protocol):
    """The pool of engines."""

    @property
    def stale_error(self) -> type[Exception]:
        """The error of `collect`, `report` and the future of `request` if no engine holds the current weights, because
        all engines have restarted since the last broadcast. Broadcast again, then retry."""

    def ready(self, timeout_s: float) -> None:
        """Wait until every engine has started; the error names those that have not."""

    def window(self) -> int:
        """Return the engines' context length in tokens."""

    def collect(
        self,
        episodes: int,
        *,
        first_seed: int,
        group: int = 1,
        store: bool = True,
        greedy: bool = False,
        timeout_s: float | None = None,
        keep_every: int = 0,
    ) -> CollectReport:
        """Play `episodes` episodes, `group` of each environment seed, and append them to replay if `store`.

        The report has one of each `keep_every` groups of episodes; 0 keeps none.
        """

    def start(
        self, *, first_seed: int, episodes_per_version: int, max_staleness: int, group: int = 1, keep_every: int = 0
    ) -> None:
        """Play episodes continuously, up to `max_staleness` versions ahead of the broadcasts."""

    def admit(self, episodes: int) -> None:
        """Let what `start` began play this many more episodes of the current version."""

    def stop(self) -> None:
        """Stop what `start` began."""

    def report(self, *, at_least: int, timeout_s: float) -> CollectReport:
        """Wait until `at_least` episodes of `start` have been appended since the last report, and report them."""

    def recover(self) -> Recovery:
        """End what ranks that died have begun, and return where restarted ones continue. Broadcast after it."""

    def request(self, prompts: list[np.ndarray], n: int | np.ndarray, *, logprobs: bool = True) -> Future[FreshActions]:
        """Request `n` actions for each state, or `n[i]` for state i. Without `logprobs` the engines compute none."""

    def workers(self) -> Sequence[WorkerStatus]:
        """Return the state of each worker."""

    def sync_client(self) -> Any:
        """Return the client through which weights reach the engines (`learner.broadcast.broadcaster.SyncClient`)."""

    def probe(self, tokens: np.ndarray, positions: np.ndarray) -> Sequence[ProbeAnswer]:
        """Return each engine's log p(tokens[i] | tokens[:i]) for each i in `positions`, int32 ascending from 1 on."""


class Scorer(Protocol):
    """Hands the critic's weights to what chooses actions by it (`learner.critic_scorer`)."""

    def __call__(self, state: dict[str, Tensor], version: int) -> object:
        """Replace the critic's weights by those of `version`, and return when they are in use."""


class ExactActions(Protocol):
    """The exact values of an environment that can be solved, in the policy's tokens."""

    def __call__(self, episode: Episode, turns: np.ndarray) -> Sequence[Mapping[tuple[int, ...], float]]:
        """Return Q* of each legal action, by the action's tokens, at the state before each of `turns`."""


class Publisher(Protocol):
    """The board to which the learner publishes events and metrics endpoints."""

    def publish(self, event: dict[str, Any]) -> None:
        """Publish one event; `learner.records` lists them."""

    def register_target(self, role: str, name: str, address: str) -> None:
        """Register a metrics endpoint (`address` is host:port)."""
