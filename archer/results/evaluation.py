"""Play the episodes of an evaluation: every policy, one engine after the other, on one Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from rich.console import Console

from actors.pool.client import PoolClient
from actors.pool.pool import start_pool
from actors.rollout.player import WorkerArgs
from archer.driver.cluster import cluster
from archer.driver.tool_calls import calls_of
from archer.results.comparison import Comparison
from archer.results.policies import Policy
from archer.results.statistics import EvalResult, Evaluation


def play_policies(policies: Sequence[Policy], comparison: Comparison, progress: Console) -> Iterator[Evaluation]:
    """Yield the evaluation of each policy under each decoding.

    The engines of a policy end before those of the next policy start. Raises the errors of `actors`.
    """
    progress.print("starting Ray")
    with cluster(*(policy.config for policy in policies)):
        for number, policy in enumerate(policies, start=1):
            progress.print(f"starting the engine of {policy.name} ({number} of {len(policies)})")
            if sentence := calls_of(policy.config, policy.model).sentence:
                progress.print(sentence, markup=False)
            with ExitStack() as stack:
                pool = _start_pool(policy)
                stack.callback(pool.shutdown)
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
                    event = {**vars(report), "name": policy.name, "dropped": report.env_failures}
                    yield Evaluation(EvalResult.from_event(event, env=comparison.env.id, greedy=greedy), report)


def _start_pool(policy: Policy) -> PoolClient:
    config, scorer, candidates = policy.config, None, 1
    if policy.run is not None and policy.critic is not None:
        from learner.critic_scorer import start_scorer  # late: only policies that play by their critic need torch here

        scorer = start_scorer(policy.run.learner, policy.model, policy.critic)
        candidates = policy.run.algorithm_config.proposals()
    arguments = WorkerArgs(
        config=config.rollout,
        model=policy.model,
        env_id=config.env.id,
        env_kwargs=config.env.kwargs,
        run=f"eval-{policy.name}",
        seed=config.seed,
        scorer=scorer,
        candidates=candidates,
    )
    return start_pool(arguments)
