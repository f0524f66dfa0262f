"""Measuring a policy: the figures of a set of episodes, and what two policies differ by on the same ones."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from archer.errors import RunError
from archer.results.summary import bootstrap_interval

Decoding = Literal["sampled", "greedy"]

FIRST_HELD_OUT_SEED = 1 << 30
"""Environment seeds from here on are for evaluation (learner.train.EVALUATION_SEED); no training run gets so far."""


class EpisodeReport(Protocol):
    """What `collect` answers (actors.pool.reports.CollectReport), as far as figures need it; one entry per episode."""

    returns: np.ndarray  # float32 [episodes]
    successes: np.ndarray  # float32 [episodes], NaN where the task does not say
    turns: np.ndarray  # int32 [episodes]
    invalid_actions: np.ndarray  # int32 [episodes]
    action_tokens: int
    seconds: float


class SeededReport(EpisodeReport, Protocol):
    """The same with what pairs the episodes of two policies, and with what did not go as it should."""

    seeds: np.ndarray  # int64 [episodes]
    tokens: np.ndarray  # int32 [episodes], action tokens
    env_failures: int  # episodes dropped because the environment raised
    window_truncations: int  # episodes cut because they outgrew the model's window
    failures: list[str]  # the errors of the dropped ones


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
            mean_tokens=report.action_tokens / returns.size if report.action_tokens else None,
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


@dataclass(frozen=True)
class Evaluation:
    """One policy under one decoding: the figures, and the episodes that they are of."""

    result: EvalResult
    report: SeededReport

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
