"""Play the episodes of an evaluation: every policy, one engine after the other, on one Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from archer.results.comparison import Comparison
from archer.results.policies import Policy
from archer.results.statistics import EvalResult, Evaluation

if TYPE_CHECKING:
    from actors.pool.client import PoolClient


def play_policies(policies: Sequence[Policy], comparison: Comparison, progress: Console) -> Iterator[Evaluation]:
    """Yield the evaluation of each policy under each decoding.

    The engines of a policy end before those of the next policy start. Raises the errors of `actors`.
    """
    from archer.driver.cluster import cluster  # imports Ray

    progress.print("starting Ray")
    with cluster(*(policy.config for policy in policies)):
        for number, policy in enumerate(policies, start=1):
            progress.print(f"starting the engine of {policy.name} ({number} of {len(policies)})")
            with _engines(policy) as pool:
                for decoding in comparison.decodings:
                    progress.print(f"playing {policy.name}, {decoding}: {comparison.episodes} episodes")
                    greedy = decoding == "greedy"
                    report = pool.collect(
                        comparison.episodes,
                        first_seed=comparison.first_seed,
                        store=False,
                        greedy=greedy,
                        timeout_s=policy.config.learner.timeout_s,
                    )
                    result = EvalResult.from_report(report, name=policy.name, env=comparison.env.id, greedy=greedy)
                    yield Evaluation(result, report)


@contextmanager
def _engines(policy: Policy) -> Iterator[PoolClient]:
    from actors.pool.pool import start_pool  # imports Ray
    from actors.rollout.worker import WorkerArgs

    config = policy.config
    scorer, candidates = None, 1
    if policy.picker is not None:
        from learner.critic_scorer import start_scorer  # imports torch

        scorer = start_scorer(policy.picker.learner, policy.model, policy.picker.weights)
        candidates = policy.picker.candidates
    arguments = WorkerArgs(
        config=config.rollout,
        model=policy.model,
        env_id=config.env.id,
        env_kwargs=config.env.kwargs,
        replay=None,
        run=f"eval-{policy.name}",
        seed=config.seed,
        version=0,
        scorer=scorer,
        candidates=candidates,
    )
    pool = start_pool(arguments)
    try:
        yield pool
    finally:
        pool.shutdown()
