"""`archer eval`: policies play the same held-out seeds, one engine after the other, and their figures are compared."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from archer.commands.output_folder import claimed
from archer.config.models import RunConfig
from archer.results.comparison import Comparison, print_comparison
from archer.results.policies import Policy, check_models, choose_policies
from archer.results.statistics import FIRST_HELD_OUT_SEED, Decoding, EvalResult, Evaluation
from archer.results.summary import returns_plot

if TYPE_CHECKING:
    from actors.pool.client import PoolClient


def evaluate_policies(
    sources: Sequence[str],
    *,
    env: str | None = None,
    episodes: int = 256,
    decodings: Sequence[Decoding] = ("sampled",),
    seed: int | None = None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Play, print the table, and leave `evaluation.json` and `returns.png` in `out` (a new folder of evals/ if None).

    Episodes have environment seeds from `seed` on, held-out ones by default. Progress goes to standard error. What
    has finished when something fails, or at Ctrl-C, is in evaluation.json. Raises ConfigError before anything is
    started, and the rollout room's errors.
    """
    policies = choose_policies(sources, env=env, overrides=overrides)
    check_models(policies)
    comparison = Comparison(
        policies, episodes=episodes, decodings=decodings, first_seed=FIRST_HELD_OUT_SEED if seed is None else seed
    )
    said = Console(stderr=True, highlight=False, soft_wrap=True)
    with claimed(_new_folder(comparison.env.id) if out is None else out) as folder:
        record = folder / "evaluation.json"
        try:
            for evaluation in play_policies(policies, comparison, said):
                comparison.evaluations.append(evaluation)
                comparison.write(record)
        finally:
            if comparison.evaluations and not comparison.complete:
                said.print(f"what has finished is in {record}", markup=False)
    plot = returns_plot([e.result for e in comparison.evaluations], folder / "returns.png", title=comparison.title)
    console = Console()
    print_comparison(comparison, console)
    console.print(f"plot {plot}, figures and episodes {record}", soft_wrap=True, highlight=False, markup=False)


def play_policies(policies: Sequence[Policy], comparison: Comparison, said: Console) -> Iterator[Evaluation]:
    """Each policy under each decoding. One Ray cluster for all; a policy's engines end before the next one's start."""
    from archer.driver.cluster import cluster  # late: brings Ray

    said.print("starting Ray")
    with cluster(reservation([policy.config for policy in policies])):
        for number, policy in enumerate(policies, start=1):
            said.print(f"starting the engine of {policy.name} ({number} of {len(policies)})", markup=False)
            with _engines(policy) as pool:
                for decoding in comparison.decodings:
                    said.print(f"playing {policy.name}, {decoding}: {comparison.episodes} episodes", markup=False)
                    yield _play(policy, pool, comparison, decoding)


def reservation(configs: Sequence[RunConfig]) -> RunConfig:
    """A configuration that reserves of Ray what the hungriest of `configs` does; their engines run one by one."""
    rollouts = [config.rollout for config in configs]
    cpus = [config.cluster.num_cpus for config in configs if config.cluster.num_cpus is not None]
    needs = {
        "workers": 1,
        "cpus_per_worker": max(rollout.workers * rollout.cpus_per_worker for rollout in rollouts),
        "gpus_per_worker": max(rollout.workers * rollout.gpus_per_worker for rollout in rollouts),
    }
    first = configs[0]
    return first.model_copy(
        update={
            "rollout": first.rollout.model_copy(update=needs),
            "cluster": first.cluster.model_copy(update={"num_cpus": max(cpus, default=None)}),
        }
    )


@contextmanager
def _engines(policy: Policy) -> Iterator[PoolClient]:
    from actors.pool.pool import WorkerArgs, start_pool  # late: brings vLLM

    config = policy.config
    scorer, candidates = None, 1
    if policy.picker is not None:
        from learner.critic_scorer import start_scorer  # late: brings torch

        scorer = start_scorer(policy.picker.learner, policy.model, policy.picker.weights)
        candidates = policy.picker.learner.chai.candidates
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


def _play(policy: Policy, pool: PoolClient, comparison: Comparison, decoding: Decoding) -> Evaluation:
    greedy = decoding == "greedy"
    report = pool.collect(
        comparison.episodes,
        first_seed=comparison.first_seed,
        store=False,
        greedy=greedy,
        timeout_s=policy.config.learner.timeout_s,
    )
    result = EvalResult.from_report(report, name=policy.name, env=comparison.env.id, greedy=greedy)
    return Evaluation(result, report)


def _new_folder(env: str) -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9._-]+', '-', env)}"
    for number in itertools.count(1):
        folder = Path("evals") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
    raise AssertionError("unreachable")
