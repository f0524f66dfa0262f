"""Measuring a policy: the figures of a set of episodes."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from archer.errors import RunError
from archer.report import bootstrap_interval

FIRST_HELD_OUT_SEED = 1 << 30
"""Environment seeds from here on are for evaluation (learner.train.EVALUATION_SEED); no training run gets so far."""


class EpisodeReport(Protocol):
    """What `collect` answers (learner.protocols.CollectReport), as far as it is used here; one entry per episode."""

    returns: np.ndarray  # float32 [episodes]
    successes: np.ndarray  # float32 [episodes], NaN where the task does not say
    turns: np.ndarray  # int32 [episodes]
    invalid_actions: np.ndarray  # int32 [episodes]
    action_tokens: int
    seconds: float


@dataclass(frozen=True)
class EvalResult:
    """One evaluation. Returns are undiscounted; the interval is a 95% bootstrap of their mean."""

    name: str
    env: str
    episodes: int
    return_mean: float
    return_low: float
    return_high: float
    success_rate: float | None
    mean_turns: float
    invalid_share: float  # of all turns
    tokens_per_second: float
    seconds: float
    greedy: bool = False

    @classmethod
    def from_report(cls, report: EpisodeReport, *, name: str, env: str, greedy: bool = False) -> "EvalResult":
        """Figures of the episodes in `report`. Raises RunError where there are none."""
        returns = np.asarray(report.returns, dtype=np.float64)
        if returns.size == 0:
            raise RunError(f"evaluation of {name} on {env}: no episode finished, so there is nothing to average")
        low, high = bootstrap_interval(returns)
        known = np.asarray(report.successes, dtype=np.float64)
        known = known[~np.isnan(known)]
        turns = float(np.sum(report.turns))
        return cls(
            name=name,
            env=env,
            episodes=int(returns.size),
            return_mean=float(returns.mean()),
            return_low=low,
            return_high=high,
            success_rate=float(known.mean()) if known.size else None,
            mean_turns=turns / returns.size,
            invalid_share=float(np.sum(report.invalid_actions)) / turns if turns else 0.0,
            tokens_per_second=report.action_tokens / report.seconds if report.seconds > 0 else 0.0,
            seconds=float(report.seconds),
            greedy=greedy,
        )

    @classmethod
    def from_event(cls, event: dict[str, Any], *, env: str, greedy: bool = False) -> "EvalResult":
        """Figures of an `evaluation` event as the learner publishes it, with one entry per episode."""
        report = _EventReport(
            returns=np.asarray(event["returns"], dtype=np.float64),
            successes=np.array([np.nan if s is None else s for s in event["successes"]], dtype=np.float64),
            turns=np.asarray(event["turns"]),
            invalid_actions=np.asarray(event["invalid_actions"]),
        )
        return cls.from_report(report, name=event["name"], env=env, greedy=greedy)

    def row(self, *, cycle: int, collected_episodes: int) -> dict[str, Any]:
        """A row of metrics.jsonl, which the display and the learning curve read too."""
        return {"kind": "evaluation", **asdict(self), "cycle": cycle, "collected_episodes": collected_episodes}


@dataclass
class _EventReport:
    returns: np.ndarray
    successes: np.ndarray
    turns: np.ndarray
    invalid_actions: np.ndarray
    action_tokens: int = 0
    seconds: float = 0.0
