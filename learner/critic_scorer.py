"""The critic at play: it chooses the best of the policy's candidate actions, in a Ray actor or in an inline run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions
from buffer.telemetry.endpoint import Exposure, Process
from learner.config import LearnerConfig
from learner.errors import WaitTimeoutError
from learner.metrics import ScorerMetrics
from learner.passes.rows import Row

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_PROCESSES_TIMEOUT_S = 2.0
STATES_A_PASS = 32
"""States in one forward pass, which bounds memory when many episodes ask at once."""


class CriticScorer:
    """Holds a copy of the critic. Before the first `load` it chooses the first candidate.

    Args:
        model: folder or name of the policy, from whose tokenizer and architecture the critic is built.
    """

    def __init__(self, config: LearnerConfig, model: str) -> None:
        from transformers import AutoTokenizer

        from learner.models.critic import build_critic

        torch.set_num_threads(config.threads)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        # The weights that `load` receives have the adapters merged.
        whole = config.model_copy(update={"lora": None})
        self._critic, self._encoder = build_critic(whole, model, tokenizer)
        self._critic.requires_grad_(False).eval()
        self.version: int | None = None

    def load(self, state: dict[str, Tensor], version: int) -> int:
        """Replace the critic's weights by those of `version`, and return `version`."""
        self._critic.load_state_dict(state)
        self.version = version
        return version

    def choose(self, states: Sequence[np.ndarray], candidates: Sequence[FreshActions]) -> list[int]:
        """Return for each state the index of the candidate with the largest min_i Q_i(s, a).

        Args:
            states: int32 token prefixes.
            candidates: the actions of each state, the same number at every state.
        """
        if self.version is None:
            return [0] * len(states)
        rows = [_row(state, actions) for state, actions in zip(states, candidates, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: rows[i].size)
        chosen = [0] * len(rows)
        for start in range(0, len(order), STATES_A_PASS):
            part = order[start : start + STATES_A_PASS]
            layout = self._encoder.encode([rows[i] for i in part], ("fresh",), 0)
            with torch.no_grad():
                q = self._critic(layout, q=("fresh",))["q_fresh"].amin(0)
            for i, best in zip(part, q.argmax(-1).tolist(), strict=True):
                chosen[i] = best
        return chosen


def _row(state: np.ndarray, actions: FreshActions) -> Row:
    """Return a row whose episode ends with the state, with the candidates as fresh actions."""
    end = np.array([len(state)], dtype=np.int32)
    nothing = np.empty(0, dtype=np.int32)
    episode = Episode(
        episode_id="",
        tokens=state,
        action_start=end,
        action_end=end,
        reward=np.zeros(1, dtype=np.float32),
        logprobs=nothing,
        versions=nothing,
        terminated=False,
        truncated=False,
    )
    return Row(episode, np.zeros(1, dtype=np.int32), fresh=actions)


@dataclass(frozen=True)
class ActorScorer:
    """Hands weights to a `CriticScorer` that is a Ray actor; satisfies `learner.protocols.Scorer`. Picklable."""

    actor: ActorHandle
    timeout_s: float

    def processes(self) -> list[Process]:
        """Return the scorer, without an address if it does not answer in time."""
        import ray

        try:
            address = ray.get(self.actor.metrics_address.remote(), timeout=_PROCESSES_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            address = ""
        return [Process("scorer", "scorer", address)]

    def __call__(self, state: dict[str, Tensor], version: int) -> None:
        """Load the critic of `version`. Raises WaitTimeoutError."""
        import ray

        try:
            ray.get(self.actor.load.remote(state, version), timeout=self.timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            raise WaitTimeoutError(
                f"the scorer did not load the critic of cycle {version} within {self.timeout_s:.0f} s; see its log in "
                "the Ray session folder"
            ) from error


class ServedScorer(CriticScorer):
    """A `CriticScorer` in a process of its own, with metrics."""

    def __init__(self, config: LearnerConfig, model: str, exposure: Exposure) -> None:
        super().__init__(config, model)
        self._metrics = ScorerMetrics()
        self._address = exposure.serve(self._metrics.registry)

    def load(self, state: dict[str, Tensor], version: int) -> int:
        """See `CriticScorer.load`."""
        self._metrics.loads.inc()
        return super().load(state, version)

    def choose(self, states: Sequence[np.ndarray], candidates: Sequence[FreshActions]) -> list[int]:
        """See `CriticScorer.choose`."""
        with self._metrics.choose_seconds.time():
            chosen = super().choose(states, candidates)
        self._metrics.states.inc(len(chosen))
        return chosen

    def metrics_address(self) -> str:
        """Return "host:port" of the metrics endpoint."""
        return self._address


def start_scorer(
    config: LearnerConfig, model: str | Path, critic: Path | None = None, exposure: Exposure | None = None
) -> ActorHandle:
    """Return the scorer as a Ray actor, with the weights in the file `critic` if given.

    The actor reserves no CPU, because it works while the learner waits for episodes.
    """
    import ray  # late: an inline run has the scorer in its process

    from buffer.node_affinity import this_node

    scorer = ray.remote(ServedScorer).options(num_cpus=0, scheduling_strategy=this_node())
    scorer = scorer.remote(config, str(model), exposure or Exposure())
    if critic is not None:
        ActorScorer(scorer, config.timeout_s)(torch.load(critic, weights_only=True), 0)
    return scorer
