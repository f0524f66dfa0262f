"""Measuring a policy: the figures of a set of episodes, and what two policies differ by on the same ones."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from archer.errors import RunError
from archer.results.summary import bootstrap_interval
from buffer.rollout_records import CollectReport

Decoding = Literal["sampled", "greedy"]

FIRST_HELD_OUT_SEED = 1 << 30
"""Environment seeds from here on are for evaluation (learner.train.EVALUATION_SEED); no training run gets so far."""


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
    mean_tokens: float | None  # written by the policy in an episode; None where the report doesn't count them
    invalid_share: float  # of all turns
    tokens_per_second: float
    seconds: float
    greedy: bool = False

    @property
    def decoding(self) -> Decoding:
        return "greedy" if self.greedy else "sampled"

    @classmethod
    def from_report(cls, report: CollectReport, *, name: str, env: str, greedy: bool = False) -> "EvalResult":
        """Return the figures of the episodes in `report`. Raises RunError if the report has no episodes."""
        return cls._of(
            report.returns,
            report.successes,
            report.turns,
            report.invalid_actions,
            name=name,
            env=env,
            greedy=greedy,
            action_tokens=report.action_tokens,
            seconds=report.seconds,
        )

    @classmethod
    def from_event(cls, event: dict[str, Any], *, env: str, greedy: bool = False) -> "EvalResult":
        """Return the figures of an `evaluation` event of the learner; the event reports no tokens and no time."""
        return cls._of(
            np.asarray(event["returns"]),
            np.array([np.nan if s is None else s for s in event["successes"]]),
            np.asarray(event["turns"]),
            np.asarray(event["invalid_actions"]),
            name=event["name"],
            env=env,
            greedy=greedy,
        )

    @classmethod
    def _of(
        cls,
        returns: np.ndarray,
        successes: np.ndarray,
        turns: np.ndarray,
        invalid_actions: np.ndarray,
        *,
        name: str,
        env: str,
        greedy: bool,
        action_tokens: int = 0,
        seconds: float = 0.0,
    ) -> "EvalResult":
        returns = returns.astype(np.float64)
        if returns.size == 0:
            raise RunError(f"evaluation of {name} on {env}: no episode finished, so there is nothing to average")
        low, high = bootstrap_interval(returns)
        known = successes.astype(np.float64)
        known = known[~np.isnan(known)]
        total = float(turns.sum())
        return cls(
            name=name,
            env=env,
            episodes=int(returns.size),
            return_mean=float(returns.mean()),
            return_low=low,
            return_high=high,
            success_rate=float(known.mean()) if known.size else None,
            mean_turns=total / returns.size,
            mean_tokens=action_tokens / returns.size if action_tokens else None,
            invalid_share=float(invalid_actions.sum()) / total if total else 0.0,
            tokens_per_second=action_tokens / seconds if seconds > 0 else 0.0,
            seconds=float(seconds),
            greedy=greedy,
        )

    def row(self, *, cycle: int, collected_episodes: int) -> dict[str, Any]:
        """A row of metrics.jsonl, which the display and the learning curve read too."""
        return {"kind": "evaluation", **asdict(self), "cycle": cycle, "collected_episodes": collected_episodes}


@dataclass(frozen=True)
class Evaluation:
    """One policy under one decoding: the figures, and the episodes that they are of."""

    result: EvalResult
    report: CollectReport

    def rows(self) -> list[dict[str, Any]]:
        """One row per episode, in the order of their seeds; `success` is null where the task does not say."""
        report = self.report
        columns = zip(
            report.seeds.tolist(),
            np.round(report.returns.astype(np.float64), 6).tolist(),
            [None if np.isnan(success) else bool(success) for success in report.successes],
            report.turns.tolist(),
            report.invalid_actions.tolist(),
            report.tokens.tolist(),
            strict=True,
        )
        names = ("seed", "return", "success", "turns", "invalid_actions", "tokens")
        return [dict(zip(names, values, strict=True)) for values in columns]


@dataclass(frozen=True)
class Difference:
    """By how much the mean return of `name` is above that of `first`, both under the same decoding.

    Both played the same environment seeds, and a seed fixes the task of an episode: its hidden word, its map. So the
    differences are taken seed by seed and the bootstrap draws seeds, which keeps how much harder one task is than
    another out of the interval. Two policies whose own intervals overlap can so be told apart. What each draws while
    it samples is not shared, and stays in.
    """

    name: str
    first: str
    decoding: Decoding
    episodes: int  # seeds that both finished
    mean: float
    low: float  # 95% bootstrap
    high: float

    @classmethod
    def between(cls, first: Evaluation, other: Evaluation) -> "Difference | None":
        """None where no seed was finished by both, because the environment failed in all of them."""
        _, of_first, of_other = np.intersect1d(first.report.seeds, other.report.seeds, return_indices=True)
        if not of_first.size:
            return None
        gains = np.asarray(other.report.returns, np.float64)[of_other]
        gains = gains - np.asarray(first.report.returns, np.float64)[of_first]
        low, high = bootstrap_interval(gains)
        return cls(
            other.result.name, first.result.name, other.result.decoding, gains.size, float(gains.mean()), low, high
        )


def differences(evaluations: list[Evaluation]) -> list[Difference]:
    """Every other policy against the first one, decoding by decoding."""
    if not evaluations:
        return []
    first = {e.result.decoding: e for e in evaluations if e.result.name == evaluations[0].result.name}
    found = []
    for evaluation in evaluations:
        base = first.get(evaluation.result.decoding)
        difference = None if base is None or base is evaluation else Difference.between(base, evaluation)
        if difference is not None:
            found.append(difference)
    return found
